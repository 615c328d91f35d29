"""What ``train`` and ``prune`` begin with: a recipe and a model, or a run that was cut off."""

from dataclasses import dataclass
from pathlib import Path

from ovit_deploy import models
from ovit_deploy.cli import common
from ovit_deploy.errors import OvitError
from ovit_deploy.finetune.tracking import TrackerName, check_installed
from ovit_deploy.models import Choice
from ovit_deploy.recipe import Recipe
from ovit_deploy.working_folder import RESUME, partial_folder


@dataclass(frozen=True)
class Beginning:
    """What a command line asks for."""

    recipe: Recipe
    choice: Choice
    data: str | None
    name: str | None
    memory_budget: int | None
    device: str | None
    workers: int
    track: TrackerName | None
    resume: bool


@dataclass(frozen=True)
class Options:
    """The options that say what to run, as they were typed."""

    recipe: str | None
    recipe_arg: tuple[str, ...]
    model: str | None
    checkpoint: Path | None
    pretrained: bool
    data: str | None
    name: str | None
    memory_budget: str | None = None
    device: str | None = None
    workers: int = 0
    track: TrackerName | None = None
    model_arg: tuple[str, ...] = ()


def begin(given: Options, resume: str | None) -> Beginning:
    """A new run; with ``resume`` the run of that name, and options that are given too must agree with what it is of.

    Raises:
        OvitError: there is neither a recipe nor a run to resume, or they do not go together.
    """
    budget = common.parse_bytes(given.memory_budget)
    if given.workers < 0:
        raise OvitError(f"--workers {given.workers}: not a number of processes", "give 0 or more")
    check_installed(given.track)
    if resume is not None:
        return _again(given, resume, budget)
    if given.recipe is None:
        raise OvitError("neither --recipe nor --resume is given", "for example --recipe recipes/deit_75.yaml")
    recipe = common.read_recipe(given.recipe, given.recipe_arg)
    choice = _choice(given, recipe)
    machine = (budget, given.device, given.workers, given.track)
    return Beginning(recipe, choice, given.data, given.name, *machine, resume=False)


def _again(given: Options, resume: str, budget: int | None) -> Beginning:
    from ovit_deploy.finetune.fingerprint import Start

    if given.name not in (None, resume):
        raise OvitError(f"--resume {resume} with --name {given.name}: a run keeps its name", "leave out --name")
    if given.recipe_arg and given.recipe is None:
        raise OvitError("--recipe-arg without --recipe: a run keeps its recipe", "leave out --recipe-arg")
    start = Start.read(partial_folder(resume) / RESUME)
    recipe = common.read_recipe(given.recipe, given.recipe_arg) if given.recipe else start.recipe_again()
    names_model = given.model is not None or given.checkpoint is not None or given.pretrained or given.model_arg
    return Beginning(
        recipe,
        _choice(given, recipe) if names_model else start.choice_again(),
        given.data if given.data is not None else start.data,
        resume,
        budget if budget is not None else start.memory_budget,
        given.device,
        given.workers,
        given.track,
        resume=True,
    )


def _choice(given: Options, recipe: Recipe) -> Choice:
    return models.choose(
        given.model,
        checkpoint=given.checkpoint,
        pretrained=given.pretrained,
        section=recipe.model,
        arguments=common.model_arguments(given.model_arg),
    )
