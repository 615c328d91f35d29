"""Runs that tell a tracker what metrics.jsonl records."""

import importlib.util
import json
from pathlib import Path

import pytest
from run_to_kill import NAME, dying_at_step, in_a_process
from run_to_kill import go as run_it

from ovit_deploy.cli import main
from ovit_deploy.finetune.tracking import scalars


def told_to_tensorboard(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard itself reads: values by tag and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def recorded(folder: Path) -> dict[str, dict[int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, dict[int, float]] = {}
    for line in lines:
        for name, value in scalars(line).items():
            found.setdefault(name, {})[line["step"]] = value
    return found


def check_same(folder: Path) -> None:
    told, wanted = told_to_tensorboard(folder / "tensorboard"), recorded(folder)
    assert told.keys() == wanted.keys() > {"epoch/loss", "epoch/train_top1", "epoch/learning_rate", "prune/sparsity"}
    for name, values in wanted.items():
        assert told[name] == pytest.approx(values, rel=1e-6), name
    assert list(told["epoch/loss"]) == [8, 16, 24]
    assert list(told["prune/sparsity"]) == [8, 12, 16]


def resumed(runs: Path) -> None:
    run_it(runs, resume=True, track="tensorboard")


def dying(runs: Path) -> None:
    dying_at_step(runs, 13, "gradual", False, track="tensorboard")


def test_tensorboard_reads_what_metrics_jsonl_holds_of_a_run_that_was_killed_too(tmp_path) -> None:
    assert in_a_process(dying, tmp_path) == -9
    assert in_a_process(resumed, tmp_path) == 0
    check_same(tmp_path / NAME)
    assert len(list((tmp_path / NAME / "tensorboard").iterdir())) == 1


def test_a_tracker_that_is_not_installed_is_told_before_anything_is_done(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        main(["prune", "--recipe", "oneshot_magnitude", "--track", "wandb"])
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert "wandb is not installed" in told
    assert "pip install 'ovit-deploy[wandb]'" in told
    assert not list(tmp_path.iterdir())
