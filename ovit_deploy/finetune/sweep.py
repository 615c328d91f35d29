"""A sweep: one recipe at several sparsities, a run each; one pass over the gradients where the method allows it."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch

from ovit_deploy.checkpoint import RUNS
from ovit_deploy.data import ImageData
from ovit_deploy.errors import RecipeError, RunError
from ovit_deploy.finetune.methods import method_of
from ovit_deploy.finetune.run import Finished, Watchers, run
from ovit_deploy.finetune.tracking import TrackerName
from ovit_deploy.models import Choice
from ovit_deploy.pruning.sweep import Sweep
from ovit_deploy.recipe import Recipe
from ovit_deploy.recipe.pruners import PruningModifier
from ovit_deploy.recipe.write import header_of, write


def sweep(
    recipe: Recipe,
    choice: Choice,
    data: ImageData,
    sparsities: Sequence[float],
    *,
    name: str | None = None,
    runs: Path = RUNS,
    memory_budget: int | None = None,
    watchers: Watchers | None = None,
    device: torch.device | None = None,
    num_workers: int = 0,
    track: TrackerName | None = None,
) -> list[Finished]:
    """Carry out ``recipe`` once for each sparsity, into ``runs/<name>-50`` and so on.

    Every run is what the recipe with that sparsity would give by itself: each starts from the same model and seed.

    Args:
        recipe: has one pruning modifier, which prunes once, at the start.
        choice: as of :func:`~ovit_deploy.finetune.run.run`, as the arguments that are not told here.
        data: images to train and to test on.
        sparsities: one run each.
        name: of the runs, before the sparsity; by default the recipe's name and the time.
        runs: the folder of all runs.
        memory_budget: bytes that pruning may use.
        watchers: who is told how it goes.
        device: where the model computes.
        num_workers: processes that prepare images, beside this one.
        track: who is told what metrics.jsonl records, beside that file.

    Raises:
        RecipeError: the recipe prunes several times, or not at the start.
        OvitError: as of a run; the runs before it stay.
    """
    modifier = _one_shot(recipe)
    name = name or f"{recipe.name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    names = [f"{name}-{100 * sparsity:g}" for sparsity in sparsities]
    for taken in (runs / each for each in names):
        if taken.exists():
            raise RunError(f"{taken} exists already", "choose another --name")
    points = [at_sparsity(recipe, modifier, sparsity) for sparsity in sparsities]
    methods = {_place(recipe, modifier): Sweep(method_of(modifier, memory_budget))}
    return [
        run(
            point,
            choice,
            data,
            name=each,
            runs=runs,
            memory_budget=memory_budget,
            watchers=watchers,
            methods=methods,
            device=device,
            num_workers=num_workers,
            track=track,
        )
        for point, each in zip(points, names, strict=True)
    ]


def at_sparsity(recipe: Recipe, modifier: PruningModifier, sparsity: float) -> Recipe:
    """``recipe`` with another sparsity, and a text that says so.

    Raises:
        RecipeError: the modifier's mask does not go with that sparsity.
    """
    values = modifier.model_dump(exclude_unset=True) | {"init_sparsity": sparsity, "final_sparsity": sparsity}
    try:
        other = type(modifier).model_validate(values)
    except ValueError as error:
        raise RecipeError(
            f"{_place(recipe, modifier)}: cannot be swept to {sparsity:g}: {error}", "leave that sparsity out"
        ) from error
    modifiers = tuple(other if one is modifier else one for one in recipe.modifiers)
    changed = recipe.model_copy(update={"modifiers": modifiers})
    return changed.model_copy(update={"text": write(changed, header_of(recipe.text)), "overrides": {}})


def _one_shot(recipe: Recipe) -> PruningModifier:
    """The one modifier that prunes, once and at the start."""
    modifier = recipe.only(
        PruningModifier, "a sweep needs one pruning modifier", "for example recipes/oneshot_ovit.yaml"
    )
    if modifier.start > 0 or modifier.end_epoch > modifier.start:
        raise RecipeError(
            f"{_place(recipe, modifier)}: prunes from epoch {modifier.start:g} to {modifier.end_epoch:g}, "
            "a sweep needs one pruning at epoch 0",
            "set start_epoch and end_epoch to 0, or prune to each sparsity in a run of its own",
        )
    return modifier


def _place(recipe: Recipe, modifier: PruningModifier) -> str:
    return next(place for one, place in zip(recipe.modifiers, recipe.places, strict=True) if one is modifier)
