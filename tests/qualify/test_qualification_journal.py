import pytest

from ovit_deploy.errors import RunError
from ovit_deploy.qualify.journal import Journal
from ovit_deploy.qualify.task import Row, Settings

GOOD = Row(
    "test_vit",
    family="ViT, DeiT",
    weights="chance",
    input_size=(3, 64, 64),
    parameters=100,
    prunable=80,
    sparsity=0.75,
    parity={"onnxruntime fp32": {"max_abs_difference": 1e-7, "cosine": 1.0}},
    seconds=1.5,
    peak_bytes=10,
)


def test_rows_come_back_as_they_were(tmp_path) -> None:
    journal = Journal(tmp_path / "out" / "rows.jsonl", Settings(img_size=64))
    journal.add(GOOD)
    journal.add(Row("resnet18", failures={"prune": "no"}))
    again = Journal(journal.path, Settings(img_size=64))
    assert again.rows == {"test_vit": GOOD, "resnet18": Row("resnet18", failures={"prune": "no"})}


def test_a_later_row_of_a_model_counts(tmp_path) -> None:
    journal = Journal(tmp_path / "rows.jsonl", Settings())
    journal.add(Row("test_vit", failures={"process": "took longer than 1 s"}))
    journal.add(GOOD)
    assert Journal(journal.path, Settings()).rows["test_vit"].qualifies


def test_half_a_line_is_cut_off(tmp_path) -> None:
    journal = Journal(tmp_path / "rows.jsonl", Settings())
    journal.add(GOOD)
    with journal.path.open("a") as file:
        file.write('{"model": "resn')
    assert list(Journal(journal.path, Settings()).rows) == ["test_vit"]


def test_rows_of_other_settings_do_not_mix(tmp_path) -> None:
    Journal(tmp_path / "rows.jsonl", Settings(img_size=64))
    with pytest.raises(RunError, match="other settings: img_size differ"):
        Journal(tmp_path / "rows.jsonl", Settings(img_size=96))


def test_another_file_is_refused(tmp_path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"rows": 1}\n')
    with pytest.raises(RunError, match="not the journal of a qualification"):
        Journal(tmp_path / "rows.jsonl", Settings())
