import json
from pathlib import Path

import pytest

from ovit_deploy.cli import main


def report(*arguments: str) -> int | str | None:
    """The exit code of ``ovit-deploy report``."""
    with pytest.raises(SystemExit) as left:
        main(["report", *arguments])
    return left.value.code


def test_the_newest_run_gets_a_page_in_its_folder(make, capsys) -> None:
    folder = make()
    assert report() == 0
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    shown = capsys.readouterr()
    assert "wrote runs/deit_75/report.html" in shown.out
    assert "ovit-deploy export --onnx --run deit_75" in shown.err


def test_several_runs_share_a_page_in_this_folder(make) -> None:
    make("one"), make("two")
    assert report("one", "runs/two", "one", "--format", "markdown") == 0
    assert Path("report.md").read_text().startswith("# 2 runs: one, two")


def test_json_holds_what_was_gathered_but_no_single_timings(make, capsys) -> None:
    make()
    assert report("deit_75", "--format", "json", "--out", "-") == 0
    told = json.loads(capsys.readouterr().out)
    (run,) = told["runs"]
    assert run["facts"]["final"]["top1"] == 0.9
    assert len(told["contestants"]) == len(run["benches"][0]["rows"]) == 4
    assert "blocks_ms" not in run["benches"][0]["rows"][0]
    assert run["commands"][0] == "ovit-deploy prune --recipe deit_75 --name deit_75"


def test_a_failed_write_leaves_the_earlier_page(make, monkeypatch) -> None:
    folder = make()
    assert report() == 0
    before = (folder / "report.html").read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert report() == 1
    assert (folder / "report.html").read_text() == before
    assert not list(folder.glob("*.partial"))


def test_an_unknown_run_is_a_users_error(make, capsys) -> None:
    make()
    assert report("none") == 1
    assert "runs/none: not a complete run" in capsys.readouterr().err
