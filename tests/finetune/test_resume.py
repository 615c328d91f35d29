"""Runs that are killed, and go on: the weights are those of the run that nothing happened to, down to the bit."""

import os
import shutil
from pathlib import Path

import pytest
from run_to_kill import NAME, RECIPES, dying_at_call, dying_at_step, dying_in_a_write, go, in_a_process, sha256

from ovit_deploy.errors import RunError
from ovit_deploy.finetune import generations
from ovit_deploy.finetune.loop import Progress
from ovit_deploy.finetune.run import Watchers

KILLED = -9


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, str]:
    """The weights' hash of each recipe."""
    found = {}
    for recipe in RECIPES:
        runs = tmp_path_factory.mktemp("whole")
        assert in_a_process(go, runs, recipe) == 0
        found[recipe] = sha256(runs)
    return found


def resumed(runs: Path, recipe: str = "gradual") -> str:
    assert in_a_process(_resume, runs, recipe) == 0
    assert [path.name for path in runs.iterdir()] == [NAME]
    assert not (runs / NAME / "resume").exists()
    return sha256(runs)


def _resume(runs: Path, recipe: str) -> None:
    go(runs, recipe, resume=True)


def test_the_recipes_differ(uninterrupted) -> None:
    assert len(set(uninterrupted.values())) == len(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("steps", [(10,), (13, 14), (17, 24)])
def test_killed_in_an_epoch_once_and_again(tmp_path, uninterrupted, recipe, steps) -> None:
    for number, step in enumerate(steps):
        assert in_a_process(dying_at_step, tmp_path, step, recipe, number > 0) == KILLED
    assert resumed(tmp_path, recipe) == uninterrupted[recipe]
