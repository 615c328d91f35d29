"""Runs that are killed, and go on: the weights are those of the run that nothing happened to, down to the bit."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_to_kill import (
    GRADUAL,
    NAME,
    RECIPES,
    SPEC,
    dying_at_call,
    dying_at_step,
    dying_in_a_write,
    go,
    images,
    in_a_process,
    sha256,
)

from ovit_deploy.errors import RunError
from ovit_deploy.finetune import generations
from ovit_deploy.finetune.fingerprint import Start
from ovit_deploy.finetune.run import Watchers
from ovit_deploy.models import Choice
from ovit_deploy.pruning import fisher, shelf, streaming
from ovit_deploy.recipe.load import parse_recipe

KILLED = -9
HELD = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: eval(epochs)}
  - !ConstantPruningModifier {params: __ALL_PRUNABLE__, start_epoch: 0}
"""
PARTIAL = f".{NAME}.partial"


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """The runs take one thread, the other tests as many as before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, str]:
    """The weights' hash of each recipe."""
    found = {}
    for recipe in RECIPES:
        runs = tmp_path_factory.mktemp("whole")
        assert in_a_process(go, runs, recipe) == 0
        found[recipe] = sha256(runs)
    return found


def _resume(runs: Path, recipe: str) -> None:
    go(runs, recipe, resume=True)


def resumed(runs: Path, recipe: str = "gradual") -> str:
    """The weights' hash after going on; nothing but the complete run is left."""
    assert in_a_process(_resume, runs, recipe) == 0
    assert [path.name for path in runs.iterdir()] == [NAME]
    assert not (runs / NAME / "resume").exists()
    return sha256(runs)


def test_the_recipes_differ(uninterrupted) -> None:
    assert len(set(uninterrupted.values())) == len(RECIPES)


@pytest.mark.parametrize(("recipe", "step"), [(recipe, 26 if recipe == "int8" else 10) for recipe in RECIPES])
def test_killed_in_an_epoch(tmp_path, uninterrupted, recipe, step) -> None:
    assert in_a_process(dying_at_step, tmp_path, step, recipe, False) == KILLED
    assert resumed(tmp_path, recipe) == uninterrupted[recipe]


def test_killed_between_two_prunings_and_again_in_the_last_step(tmp_path, uninterrupted) -> None:
    for step, again in ((13, False), (24, True)):
        assert in_a_process(dying_at_step, tmp_path, step, "gradual", again) == KILLED
    assert resumed(tmp_path) == uninterrupted["gradual"]
    lines = [json.loads(line) for line in (tmp_path / NAME / "metrics.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["epoch", "prune", "prune", "epoch", "prune", "epoch"]
    assert json.loads((tmp_path / NAME / "run.json").read_text())["resumed_at_steps"] == [12, 16]


def test_killed_right_after_a_pruning_before_it_is_saved(tmp_path, uninterrupted) -> None:
    assert in_a_process(dying_at_call, tmp_path, generations.__name__, "save", 3, "gradual", False) == KILLED
    assert resumed(tmp_path) == uninterrupted["gradual"]


def _dying_in_the_second_elimination(runs: Path) -> None:
    shelf.SECONDS_BETWEEN = 0.0
    dying_at_call(runs, streaming.__name__, "eliminate_group", 2, "gradual", False)


def test_killed_inside_a_pruning_it_goes_on_from_the_sums_that_were_kept(tmp_path, uninterrupted, monkeypatch) -> None:
    assert in_a_process(_dying_in_the_second_elimination, tmp_path) == KILLED
    assert (tmp_path / PARTIAL / "resume" / "pruning" / "pass 0.0").is_dir()
    batches, real = [], fisher.batch_gradients
    monkeypatch.setattr(fisher, "batch_gradients", lambda *given: (batches.append(given), real(*given))[1])
    go(tmp_path, resume=True)
    assert len(batches) == 1  # of the third pruning; the second had all of its own
    assert sha256(tmp_path) == uninterrupted["gradual"]


@pytest.mark.parametrize(("kind", "number"), [("write", 5), ("fsync", 8), ("fsync", 9)])
def test_killed_inside_a_save(tmp_path, uninterrupted, kind, number) -> None:
    if kind == "write":
        assert in_a_process(dying_in_a_write, tmp_path, number, "gradual", False) == KILLED
    else:
        assert in_a_process(dying_at_call, tmp_path, "os", "fsync", number, "gradual", False) == KILLED
    assert resumed(tmp_path) == uninterrupted["gradual"]


def test_a_torn_checkpoint_is_told_and_the_older_taken(tmp_path, uninterrupted) -> None:
    assert in_a_process(dying_at_step, tmp_path, 14, "gradual", False) == KILLED
    older, newer = sorted((tmp_path / PARTIAL / "resume").glob("step-*"))
    newer.write_bytes(newer.read_bytes()[:-100])
    told: list[str] = []
    go(tmp_path, resume=True, watchers=Watchers(report=told.append))
    assert any(newer.name in line and "going back to the one before it" in line for line in told)
    assert f"going on at step {int(older.name[5:13])}" in told
    assert sha256(tmp_path) == uninterrupted["gradual"]


def test_a_run_that_was_cut_off_is_not_overwritten_nor_taken_for_another(tmp_path, monkeypatch) -> None:
    assert in_a_process(dying_at_step, tmp_path, 10, "gradual", False) == KILLED
    before = sorted(path.name for path in (tmp_path / PARTIAL / "resume").iterdir())
    with pytest.raises(RunError, match="was cut off") as refused:
        go(tmp_path)
    assert f"prune --resume {NAME}" in refused.value.hint
    with pytest.raises(RunError, match=r"recipe\.text: -training: \{batch_size: 8, ema_decay"):
        go(tmp_path, "ac/dc", resume=True)
    monkeypatch.setattr("run_to_kill.images", lambda: images(seed=1))
    with pytest.raises(RunError, match=r"data.training sha256: \w+, now \w+"):
        go(tmp_path, resume=True)
    assert sorted(path.name for path in (tmp_path / PARTIAL / "resume").iterdir()) == before


def test_a_run_is_begun_again_from_what_was_kept_of_it(tmp_path) -> None:
    """Also where the recipe's file is no YAML, and its text had lines before it."""
    recipe = parse_recipe("---\nepochs: 1\n" + HELD + "---\n# A recipe\n", source="r.md", overrides={"epochs": "2"})
    choice = Choice(SPEC, Path("weights.safetensors"))
    start = Start.of(recipe, choice, images(), torch.nn.Linear(2, 2), 10**9)
    start.write(tmp_path / "resume")
    read = Start.read(tmp_path / "resume")
    read.check(start, lambda _: pytest.fail("nothing differs"))
    assert read.choice_again() == choice
    again = read.recipe_again()
    assert (again.modifiers, again.places, again.source) == (recipe.modifiers, recipe.places, recipe.source)
    assert again.modifiers[0].end_epoch == 2


def test_there_must_be_something_to_resume(tmp_path) -> None:
    with pytest.raises(RunError, match="no checkpoint to resume from"):
        go(tmp_path, resume=True)


def test_a_run_that_died_before_its_first_checkpoint_is_no_hindrance(tmp_path, uninterrupted) -> None:
    assert in_a_process(dying_at_step, tmp_path, 2, "gradual", False) == KILLED
    assert (tmp_path / PARTIAL).is_dir()
    go(tmp_path)
    assert sha256(tmp_path) == uninterrupted["gradual"]


def test_a_terminated_command_says_how_to_go_on_and_does(tmp_path) -> None:
    for split in ("train", "val"):
        for name, colour in (("a", 40), ("b", 200)):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(16):
                pixels = np.random.default_rng(number).integers(0, 40, (16, 16, 3)) + colour
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / split / name / f"{number}.png")
    kwargs = "{img_size: 16, patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2}"
    recipe = GRADUAL.replace("end_epoch: 3", "end_epoch: 5000")
    (tmp_path / "long.yaml").write_text(f"model: {{name: vit_tiny_patch16_224, kwargs: {kwargs}}}\n{recipe}")
    command = [sys.executable, "-m", "ovit_deploy", "prune"]
    begin = subprocess.Popen(
        [*command, "--recipe", "long.yaml", "--data", "images", "--name", NAME],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    kept = tmp_path / "runs" / PARTIAL / "resume"
    while not list(kept.glob("step-*")):
        assert begin.poll() is None
        time.sleep(0.05)
    begin.send_signal(signal.SIGTERM)
    _, told = begin.communicate()
    assert begin.returncode == 128 + signal.SIGTERM, told
    assert f"go on with ovit-deploy prune --resume {NAME}" in told
    again = subprocess.Popen([*command, "--resume", NAME], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert again.stderr is not None
    for line in again.stderr:
        if "going on at step" in line:
            break
    again.send_signal(signal.SIGINT)
    _, told = again.communicate()
    assert again.returncode == 128 + signal.SIGINT, told
