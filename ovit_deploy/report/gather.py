"""The files of runs as values. What a run lacks is named, with the command that makes it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ovit_deploy import checkpoint
from ovit_deploy.errors import OvitError, RecipeError
from ovit_deploy.recipe import Recipe, Timeline, timeline
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.sparsifier import Sparsifier
from ovit_deploy.report import commands


@dataclass(frozen=True)
class Missing:
    """What a run does not have, and the command that makes it."""

    what: str
    command: str


@dataclass(frozen=True)
class Gathered:
    """One run.

    Args:
        letter: What pictures and tables call it: A, B, ...
        name: Of the run.
        facts: Its run.json.
        recipe_text: Its recipe.yaml.
        recipe: The same, read; None if this version cannot read it.
        metrics: Lines of metrics.jsonl, of epochs and of prunings.
        card: model.json of its export; None if it was not exported.
        benches: Results of latency benchmarks, as ``bench`` wrote them.
        missing: What there is not.
    """

    letter: str
    name: str
    facts: dict[str, Any]
    recipe_text: str
    recipe: Recipe | None
    metrics: tuple[dict[str, Any], ...]
    card: dict[str, Any] | None
    benches: tuple[dict[str, Any], ...]
    missing: tuple[Missing, ...]

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that tell of an epoch."""
        return [line for line in self.metrics if line.get("event") == "epoch"]

    @property
    def plan(self) -> Timeline | None:
        """When its recipe does what."""
        return timeline(self.recipe) if self.recipe else None

    @property
    def verb(self) -> str:
        """The command that made it."""
        prunes = self.recipe and any(isinstance(modifier, Sparsifier) for modifier in self.recipe.modifiers)
        return "prune" if prunes or self.facts.get("prunings") else "train"


@dataclass(frozen=True)
class Report:
    """Runs side by side."""

    runs: tuple[Gathered, ...]
    created: str

    @property
    def title(self) -> str:
        """Names of the runs, few of them."""
        names = [run.name for run in self.runs]
        return names[0] if len(names) == 1 else f"{len(names)} runs: {', '.join(names[:3])}{', ...' * (len(names) > 3)}"


def gather(folders: Sequence[Path]) -> Report:
    """The runs in ``folders``, in that order, each once.

    Raises:
        RunError: one of them is not a complete run.
    """
    unique = list({folder.resolve(): folder for folder in folders}.values())
    runs = tuple(_gather(letter(number), folder) for number, folder in enumerate(unique))
    return Report(runs, datetime.now(UTC).isoformat(timespec="seconds"))


def letter(number: int) -> str:
    """A, B, ..., Z, A2, B2, ..."""
    turn, place = divmod(number, len(ascii_uppercase))
    return ascii_uppercase[place] + (str(turn + 1) if turn else "")


def _gather(label: str, folder: Path) -> Gathered:
    run = checkpoint.load_run(folder)
    name = folder.resolve().name
    missing: list[Missing] = []
    recipe = _recipe(run, name, missing)
    metrics, lost = _metrics(folder)
    card = _card(folder, name, missing)
    benches = _benches(folder, name, missing)
    found = Gathered(label, name, run.facts, run.recipe_text, recipe, metrics, card, benches, ())
    again = [Missing(lost, commands.make(found, f"{name}-again"))] if lost else []
    return replace(found, missing=(*again, *missing))


def _recipe(run: checkpoint.Run, name: str, missing: list[Missing]) -> Recipe | None:
    source = f"{run.facts.get('recipe', name)}.yaml"
    try:
        return parse_recipe(run.recipe_text, source=source, overrides=run.facts.get("recipe_args"))
    except RecipeError as error:
        told = f"no schedule: its recipe is not one for this version ({error.message.splitlines()[0]})"
        missing.append(Missing(told, f"ovit-deploy recipe lint {run.folder / 'recipe.yaml'}"))
        return None


def _metrics(folder: Path) -> tuple[tuple[dict[str, Any], ...], str]:
    """The lines of metrics.jsonl, and why there are none."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return tuple(json.loads(line) for line in lines), ""
    except FileNotFoundError:
        return (), "no record of its training (metrics.jsonl)"
    except ValueError as error:
        return (), f"its metrics.jsonl cannot be read ({error})"


def _card(folder: Path, name: str, missing: list[Missing]) -> dict[str, Any] | None:
    path = folder / "deployment" / "model.json"
    remedy = f"ovit-deploy export --onnx --run {name}"
    if not path.is_file():
        missing.append(Missing("not exported", remedy))
        return None
    try:
        return _object(path)
    except OvitError as error:
        missing.append(Missing(error.message, remedy))
        return None


def _benches(folder: Path, name: str, missing: list[Missing]) -> tuple[dict[str, Any], ...]:
    """All results of latencies in the folder: bench.json, and what else was written beside it as bench*.json."""
    remedy, found = f"ovit-deploy bench --run {name} --engine all", []
    paths = sorted(folder.glob("bench*.json"))
    if not paths:
        missing.append(Missing("no latencies: it was not measured on any engine (bench.json)", remedy))
    for path in paths:
        try:
            document = _object(path)
        except OvitError as error:
            missing.append(Missing(error.message, remedy))
            continue
        if document.get("kind") == "latency":
            found.append(document)
    return tuple(found)


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        OvitError: it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OvitError(f"its {path.name} cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise OvitError(f"its {path.name} cannot be read (no JSON object)")
    return value
