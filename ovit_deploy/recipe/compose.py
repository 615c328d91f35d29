"""One recipe after another: the second one's epochs begin where the first one's end."""

from typing import Any

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.declaration import Modifier
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.modifiers import EpochRangeModifier, LearningRateModifier
from ovit_deploy.recipe.schema import Recipe, Training
from ovit_deploy.recipe.timeline import timeline
from ovit_deploy.recipe.write import write


def compose(first: Recipe, second: Recipe) -> Recipe:
    """The staged recipe that does ``first`` and then ``second``.

    All epochs of ``second`` are shifted by the length of ``first``; what begins at once begins there. What in
    ``first`` lasts to the end, ends there. Stages keep their names; a recipe without stages becomes ``stage_0``,
    ``stage_1`` and so on. The text of the result is a recipe of its own.

    Raises:
        RecipeError: both say how to train, or which model, and not the same.
    """
    offset, length = timeline(first).num_epochs, timeline(second).num_epochs
    before = [_pinned(modifier, offset) for modifier in first.modifiers]
    after = [_shifted(modifier, offset) for modifier in second.modifiers]
    stages = [name or "stage_0" for name in first.stages]
    later = [_free(name, stages) for name in second.stages]
    if not any(isinstance(modifier, EpochRangeModifier) for modifier in after):
        after.append(EpochRangeModifier(start_epoch=offset, end_epoch=offset + length))
        later.append(later[-1])
    whole = Recipe(
        source=f"{first.name}+{second.name}.yaml",
        text="",
        modifiers=(*before, *after),
        stages=(*stages, *later),
        **_sections(first, second),
    )
    return parse_recipe(write(whole), source=whole.source)


def _pinned(modifier: Modifier, end: float) -> Modifier:
    return modifier if modifier.end_epoch >= 0 else modifier.model_copy(update={"end_epoch": max(end, modifier.start)})


def _shifted(modifier: Modifier, offset: float) -> Modifier:
    moved: dict[str, Any] = {"start_epoch": modifier.start + offset}
    if modifier.end_epoch >= 0:
        moved["end_epoch"] = modifier.end_epoch + offset
    if isinstance(modifier, LearningRateModifier) and modifier.lr_kwargs.milestones is not None:
        milestones = tuple(epoch + offset for epoch in modifier.lr_kwargs.milestones)
        moved["lr_kwargs"] = modifier.lr_kwargs.model_copy(update={"milestones": milestones})
    return modifier.model_copy(update=moved)


def _free(name: str, taken: list[str]) -> str:
    """``name``, or one that no stage of the first recipe has."""
    numbers = range(len(taken) + 2)
    candidates = [*([name] if name else []), *(f"{name or 'stage'}_{number}" for number in numbers)]
    return next(candidate for candidate in candidates if candidate not in taken)


def _sections(first: Recipe, second: Recipe) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for key, default in (("training", Training()), ("model", None), ("compat", None)):
        said = [getattr(recipe, key) for recipe in (first, second) if getattr(recipe, key) != default]
        if len(said) == 2 and said[0] != said[1]:
            raise RecipeError(
                f"{first.name} and {second.name} have different sections {key!r}", f"give both recipes the same {key}"
            )
        chosen[key] = said[0] if said else default
    return chosen
