import os

import pytest
import torch

from ovit_deploy import checkpoint, working_folder
from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.errors import ModelError, RunError

SPEC = ModelSpec("vit_tiny_patch16_224", {"img_size": 28}, (0.3,), (0.4,), ("cat", "dog"))


def test_a_header_tells_shapes_and_model_without_the_weights(tmp_path) -> None:
    path = tmp_path / "m.safetensors"
    checkpoint.save_tensors(path, {"a.weight": torch.zeros(3, 4), "a.bias": torch.zeros(3)}, SPEC)
    header = checkpoint.read_header(path)
    assert header.spec == SPEC
    assert header.shapes == {"a.weight": (3, 4), "a.bias": (3,)}


@pytest.mark.parametrize("content", [b"", b"\x01\x02", b"\xff" * 64, (50).to_bytes(8, "little") + b"{not json"])
def test_a_corrupt_checkpoint_is_an_error_that_names_the_file(tmp_path, content) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="m.safetensors: not a whole safetensors file"):
        checkpoint.read_header(path)
    with pytest.raises(ModelError, match="m.safetensors: not a whole safetensors file"):
        checkpoint.load_tensors(path)


def test_a_missing_checkpoint_is_an_error(tmp_path) -> None:
    with pytest.raises(ModelError, match="no such checkpoint"):
        checkpoint.read_header(tmp_path / "none.safetensors")


def test_a_run_appears_whole(tmp_path) -> None:
    with working_folder.new_run("r", tmp_path) as folder:
        (folder / "run.json").write_text("{}")
        assert not (tmp_path / "r").exists()
        with pytest.raises(RunError, match="no runs here"):
            checkpoint.newest_run(tmp_path)
    assert checkpoint.newest_run(tmp_path) == tmp_path / "r"


def test_a_run_that_fails_leaves_nothing(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt), working_folder.new_run("r", tmp_path) as folder:
        (folder / "metrics.jsonl").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_not_taken_twice(tmp_path) -> None:
    with working_folder.new_run("r", tmp_path):
        pass
    with pytest.raises(RunError, match="exists already"), working_folder.new_run("r", tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_told(tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="cannot be written"), working_folder.new_run("r", tmp_path / "runs"):
        pass


def test_runs_that_are_a_file_are_told(tmp_path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match="cannot be written"), working_folder.new_run("r", tmp_path / "runs"):
        pass


def test_the_newest_export_is_the_one_written_last(tmp_path) -> None:
    for number, name in enumerate(["new", "old"]):
        card = tmp_path / name / "deployment" / "model.json"
        card.parent.mkdir(parents=True)
        card.write_text("{}")
        os.utime(card, (1000 - number, 1000 - number))
    assert checkpoint.newest_export(tmp_path) == tmp_path / "new" / "deployment"


def test_writing_replaces_a_file_at_once(tmp_path) -> None:
    path = tmp_path / "f.json"
    checkpoint.write(path, "one")
    checkpoint.write(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]
