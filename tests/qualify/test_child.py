"""Real children: what one model may take, and what is left when it took more."""

import json

import pytest

from ovit_deploy.cli import main
from ovit_deploy.qualify.child import Limits, qualify
from ovit_deploy.qualify.task import Settings

SETTINGS = Settings(engines=("onnxruntime",), img_size=32, num_grads=8, num_steps=2, num_images=4)


def test_a_model_that_takes_too_long_costs_its_row() -> None:
    row = qualify("test_vit", SETTINGS, Limits(seconds=0.3, memory_bytes=10**10))
    assert row.failures == {"process": "took longer than 0.3 s"}


def test_a_model_that_takes_too_much_memory_costs_its_row() -> None:
    row = qualify("test_vit", SETTINGS, Limits(seconds=60, memory_bytes=10**7))
    assert row.failures == {"process": "took more than 0.01 GB of memory"}
    assert row.peak_bytes is not None
    assert row.peak_bytes > 10**7


def test_the_command_keeps_what_failed_and_does_it_again_only_when_asked(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("# a remark\ntest_vjt  # no such model\n")
    command = ["qualify", "--all", "list.txt", "--engine", "onnxruntime", "--json"]
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 1
        told = capsys.readouterr()
        (row,) = json.loads(told.out)["rows"]
        assert "timm knows no such model" in row["failures"]["build"]
        assert "test_vjt: not all the way" in told.err
    assert len((tmp_path / "qualification" / "rows.jsonl").read_text().splitlines()) == 2
    assert json.loads((tmp_path / "qualification" / "results.json").read_text())["rows"] == [row]


def test_without_a_model_the_command_says_what_to_give(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["qualify"])
    assert "give timm model names, --families, or --all FILE" in capsys.readouterr().err
