"""What is wrong, doubtful or merely surprising in a recipe, told before anything is trained."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ovit_deploy.recipe.alternatives import dead_alternatives
from ovit_deploy.recipe.load import read_recipe
from ovit_deploy.recipe.modifiers import LearningRateFunctionModifier
from ovit_deploy.recipe.pruners import OViTPruningModifier
from ovit_deploy.recipe.rates import RATES
from ovit_deploy.recipe.schema import Recipe
from ovit_deploy.recipe.sparsifier import Sparsifier
from ovit_deploy.recipe.targets import targeting
from ovit_deploy.recipe.timeline import HoldZeros, Prune, Timeline, timeline
from ovit_deploy.selectors import SelectorError, Shapes, match

Severity = Literal["error", "warning", "note"]
_ORDER = {"error": 0, "warning": 1, "note": 2}
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Finding:
    """One thing to look at, where it stands (``file:line:column``) and how bad it is."""

    place: str
    severity: Severity
    code: str
    message: str


def lint(
    text: str,
    *,
    source: str,
    overrides: Mapping[str, str] | None = None,
    shapes: Shapes | None = None,
    steps_per_epoch: int | None = None,
) -> list[Finding]:
    """The findings in a recipe's text, by their place.

    Args:
        text: the recipe.
        source: its file, for the places.
        overrides: new values for its variables.
        shapes: parameter names and shapes of the model; without, selectors are not looked at.
        steps_per_epoch: without, schedules are not compared with steps.
    """
    recipe, problems = read_recipe(text, source=source, overrides=overrides)
    if recipe is None:
        found = {Finding("{}:{}:{}".format(source, *p.place), "error", "invalid", p.message) for p in problems}
    else:
        found = set(findings(recipe, shapes=shapes, steps_per_epoch=steps_per_epoch))
    return sorted(found, key=lambda one: (_line_and_column(one.place), _ORDER[one.severity], one.code, one.message))


def findings(recipe: Recipe, *, shapes: Shapes | None = None, steps_per_epoch: int | None = None) -> Iterator[Finding]:
    """What `lint` finds in a recipe that could be read."""
    plan = timeline(recipe)
    for check in _CHECKS:
        yield from check(recipe, plan)
    if steps_per_epoch is not None:
        yield from _too_frequent(recipe, steps_per_epoch)
    if shapes is not None:
        yield from _on_a_model(recipe, plan, shapes)


def _line_and_column(place: str) -> list[int]:
    return [int(part) for part in place.split("#")[0].split(":")[-2:]]


def _past_end(recipe: Recipe, plan: Timeline) -> Iterator[Finding]:
    """Something is dated after training has ended."""
    for modifier, place in zip(recipe.modifiers, recipe.places, strict=True):
        if modifier.start > plan.num_epochs or modifier.end_epoch > plan.num_epochs:
            late = max(modifier.start, modifier.end_epoch)
            name = type(modifier).__name__
            message = f"{name} lasts to epoch {late:g}, training ends at {plan.num_epochs:g}: raise end_epoch of the"
            yield Finding(place, "error", "past-end", f"{message} EpochRangeModifier")


def _no_recovery(_: Recipe, plan: Timeline) -> Iterator[Finding]:
    """The last pruning falls on the last moment of training."""
    for item in plan.dated:
        if isinstance(item.action, Prune) and item.action.grown == 1 and item.epoch == plan.num_epochs > 0:
            message = f"prunes at epoch {item.epoch:g}, the end of training: nothing is finetuned afterwards"
            yield Finding(item.action.place, "warning", "no-recovery", message)


def _ambiguous_cycle(recipe: Recipe, _: Timeline) -> Iterator[Finding]:
    """One ramp for SparseML, a saw tooth for CAP."""
    for modifier, place in zip(recipe.modifiers, recipe.places, strict=True):
        if not isinstance(modifier, LearningRateFunctionModifier) or modifier.lr_func.startswith("cyclic_"):
            continue
        if "cycle_epochs" in modifier.model_fields_set:
            message = (
                f"lr_func {modifier.lr_func} runs once and leaves cycle_epochs {modifier.cycle_epochs:g} unused; "
                f"for a saw tooth say cyclic_{modifier.lr_func}, or 'dialect: cap' if the recipe is CAP's"
            )
            yield Finding(place, "warning", "ambiguous-cycle", message)


def _default_rate(recipe: Recipe, plan: Timeline) -> Iterator[Finding]:
    """Training begins before any modifier says how fast."""
    if plan.num_epochs > 0 and not any(rate.start == 0 for rate in plan.rates):
        message = f"no modifier sets the learning rate at epoch 0: training.learning_rate {plan.default_rate:g} holds"
        yield Finding(recipe.places[0], "note", "default-rate", message)


def _rate_cut(recipe: Recipe, _: Timeline) -> Iterator[Finding]:
    """A learning rate that another one cuts short."""
    pairs = [pair for pair in zip(recipe.modifiers, recipe.places, strict=True) if isinstance(pair[0], RATES)]
    for (one, _place), (other, place) in pairwise(sorted(pairs, key=lambda pair: pair[0].start)):
        if one.end_epoch > other.start + _ROUNDING:
            message = f"sets the learning rate from epoch {other.start:g} on; the one before it lasts to "
            yield Finding(place, "warning", "rate-cut", f"{message}{one.end_epoch:g} and is cut short")


def _zeros_not_held(recipe: Recipe, plan: Timeline) -> Iterator[Finding]:
    """Training that would fill the zeros of a sparse checkpoint."""
    sparse = any(isinstance(item.action, Prune | HoldZeros) for item in plan.dated)
    if plan.num_epochs > 0 and not sparse and recipe.model is None:
        message = "trains without pruning: a sparse checkpoint would become dense; !ConstantPruningModifier keeps zeros"
        yield Finding(recipe.places[0], "note", "zeros-not-held", message)


def _sparsity_falls(_: Recipe, plan: Timeline) -> Iterator[Finding]:
    """Later modifiers ask for less sparsity than the same selectors have reached."""
    reached: dict[tuple[str, ...], float] = {}
    for item in plan.dated:
        if not isinstance(item.action, Prune) or item.action.modifier.starts_from_own:
            continue
        params = item.action.modifier.params
        if item.action.sparsity < reached.get(params, 0.0) - _ROUNDING:
            message = (
                f"asks for {item.action.sparsity:.2%} at epoch {item.epoch:g} of what is {reached[params]:.2%} sparse"
            )
            yield Finding(item.action.place, "error", "sparsity-falls", message)
        reached[params] = max(item.action.sparsity, reached.get(params, 0.0))


_CHECKS: tuple[Callable[[Recipe, Timeline], Iterator[Finding]], ...] = (
    _past_end,
    _no_recovery,
    _ambiguous_cycle,
    _default_rate,
    _rate_cut,
    _zeros_not_held,
    _sparsity_falls,
)


def _too_frequent(recipe: Recipe, steps_per_epoch: int) -> Iterator[Finding]:
    for modifier, place in zip(recipe.modifiers, recipe.places, strict=True):
        if isinstance(modifier, Sparsifier) and 0 < modifier.update_frequency * steps_per_epoch < 1 - _ROUNDING:
            message = f"update_frequency {modifier.update_frequency:g} is less than one of {steps_per_epoch} steps"
            yield Finding(place, "warning", "too-frequent", f"{message}: several prunings fall on one step")


def _on_a_model(recipe: Recipe, plan: Timeline, shapes: Shapes) -> Iterator[Finding]:
    chosen: dict[str, list[str]] = {}
    for modifier, place in targeting(recipe):
        yield from _dead(modifier.params, place, shapes)
        strict = getattr(modifier, "params_strict", True)
        try:
            chosen[place] = match(modifier.params, shapes) if strict else []
        except SelectorError as error:
            yield Finding(place, "error", "no-match", f"{type(modifier).__name__}.params: {error}")
            continue
        if isinstance(modifier, Sparsifier):
            yield from _unusual(chosen[place], place, shapes)
            yield from _uneven(modifier, chosen[place], place, shapes)
    yield from _twice_at_once(plan, chosen)


def _dead(params: tuple[str, ...], place: str, shapes: Shapes) -> Iterator[Finding]:
    for selector in params:
        pattern = selector.removeprefix("re:")
        try:
            dead = dead_alternatives(pattern, shapes) if selector != pattern else []
        except re.error:
            continue  # told as no-match
        for branch in dead:
            yield Finding(
                place, "warning", "dead-alternative", f"the branch {branch!r} of {selector!r} matches nothing"
            )


def _unusual(names: list[str], place: str, shapes: Shapes) -> Iterator[Finding]:
    matrices = [name for name in names if len(shapes[name]) > 1]
    kinds = {
        "prunes-vectors": ([name for name in names if len(shapes[name]) < 2], "biases, norms and scales"),
        "prunes-tokens": ([name for name in matrices if not name.endswith(".weight")], "embeddings and tokens"),
        "prunes-patches": ([name for name in matrices if name.startswith("patch_embed.")], "the patch embedding"),
        "prunes-head": ([name for name in matrices if name.startswith(("head.", "fc."))], "the classifier"),
    }
    for code, (found, what) in kinds.items():
        if found:
            message = f"prunes {what}, which costs accuracy and saves little: {', '.join(found[:3])}"
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            yield Finding(place, "warning", code, message + more)


def _uneven(modifier: Sparsifier, names: list[str], place: str, shapes: Shapes) -> Iterator[Finding]:
    if not isinstance(modifier, OViTPruningModifier):
        return
    uneven = [name for name in names if math.prod(shapes[name]) % modifier.fisher_block_size]
    if uneven:
        message = f"fisher_block_size {modifier.fisher_block_size} does not divide {len(uneven)} tensors, such as "
        yield Finding(place, "note", "uneven-blocks", message + uneven[0])


def _twice_at_once(plan: Timeline, chosen: dict[str, list[str]]) -> Iterator[Finding]:
    seen: dict[float, dict[str, str]] = defaultdict(dict)
    for item in plan.dated:
        if not isinstance(item.action, Prune):
            continue
        place, tensors = item.action.place, chosen.get(item.action.place, [])
        other = next((seen[item.epoch][name] for name in tensors if seen[item.epoch].get(name, place) != place), None)
        if other is not None:
            message = f"prunes at epoch {item.epoch:g} what the modifier at {other} prunes then, too"
            yield Finding(place, "warning", "twice-at-once", message)
        seen[item.epoch].update(dict.fromkeys(tensors, place))
