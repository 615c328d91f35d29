import os
from pathlib import Path

import pytest

from ovit_deploy.export.transaction import replacing


def test_a_swap_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "deployment"
    old.mkdir()
    (old / "model.json").write_text("old")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise OSError("the disk went away")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="the disk went away"), replacing(old, marker="model.json") as folder:
        (folder / "model.json").write_text("new")
    assert (old / "model.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["deployment"]


def test_what_a_dead_process_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / f".deployment.partial-{os.getpid()}" / "sub").mkdir(parents=True)
    with replacing(tmp_path / "deployment", marker="model.json") as folder:
        assert not list(folder.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["deployment"]


def test_an_empty_folder_may_be_taken(tmp_path: Path) -> None:
    with replacing(tmp_path, marker="model.json") as folder:
        (folder / "model.json").write_text("new")
    assert (tmp_path / "model.json").read_text() == "new"
