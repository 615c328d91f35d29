"""Pruning to a given time: which sparsity each layer gets, and the recipe that gives it to them.

    latency table (table.py)                     what each layer saves at each sparsity, measured
    elimination of the recipe's own pruner       what each layer loses at each sparsity, predicted
    dynamic programming (pruning/latency.py)     the least loss within the time
    recipe                                       max_sparsity of each layer, and a final sparsity that fills them all

The recipe stays an ordinary one: it can be read, resumed and run again. Of a gradual one, layers reach their ceilings
together at its last pruning.
"""

import copy
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch

from ovit_deploy import models
from ovit_deploy.compare.sensitivity import Point, sensitivity
from ovit_deploy.compare.subject import Subject, subject_of
from ovit_deploy.data import ImageData
from ovit_deploy.errors import PruningError, RecipeError
from ovit_deploy.explain.forms import Form
from ovit_deploy.explain.pieces import LAYERS, Pattern
from ovit_deploy.explain.table import SPARSITIES, Table
from ovit_deploy.finetune.methods import calibrated, method_of
from ovit_deploy.models import Choice
from ovit_deploy.pruning import MFAC, OViT, WoodFisher
from ovit_deploy.pruning.latency import Option, Plan, front, plans
from ovit_deploy.pruning.patterns import parse_pattern
from ovit_deploy.recipe import Recipe
from ovit_deploy.recipe.pruners import LAYER_RULES, FisherPruningModifier, GradientPruningModifier, PruningModifier
from ovit_deploy.recipe.quantization import QuantizationModifier
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.recipe.write import header_of, write

# The recipe's ceilings are decimals; a layer has fewer weights than 1 / this.
_STEP = 1e-9


@dataclass(frozen=True)
class Goal:
    """What is asked for: an engine with options, a time in ms, and the sparsities to choose from."""

    engine: str
    target_ms: float
    sparsities: tuple[float, ...] = SPARSITIES


@dataclass(frozen=True)
class Aim:
    """How a goal is to be reached.

    Args:
        table: Measured times.
        options: Of each layer: sparsity, ms (negative: saved), predicted loss.
        plan: What was chosen.
        front: The best plans for other times.
        recipe: That prunes by the plan.
    """

    table: Table
    options: dict[str, list[Option]]
    plan: Plan
    front: list[Plan]
    recipe: Recipe


def measurable(recipe: Recipe, goal: Goal, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Form, Pattern]:
    """What is to be measured for a goal: engine and precision, and how zeros lie. Refuses before minutes are spent.

    Args:
        recipe: Has one pruning modifier with loss curves: oViT, WoodFisher or M-FAC.
        goal: Engine and time.
        shapes: Of the model's parameters.

    Raises:
        RecipeError: The recipe has not one such modifier, or prunes more than the linear layers of blocks.
        PruningError: Its pattern leaves nothing to choose.
    """
    modifier, method = _pruner(recipe, None)
    if method.pattern not in get_args(Pattern) or parse_pattern(method.pattern).limited:
        raise PruningError(
            f"pattern {method.pattern} and a target of {goal.target_ms:g} ms: layers have no choice of sparsities",
            "use block4, or no pattern",
        )
    for name in _targets(recipe, modifier, shapes):
        if not re.fullmatch(rf"blocks\.\d+\.({'|'.join(map(re.escape, LAYERS))})\.weight", name):
            raise RecipeError(
                f"{recipe.source}: {name} is pruned, but the latency of such layers is not measured",
                f"let params name {', '.join(LAYERS)} of blocks only",
            )
    quantizes = any(isinstance(one, QuantizationModifier) for one in recipe.modifiers)
    return Form(goal.engine, precision="int8" if quantizes else "fp32"), method.pattern  # type: ignore[return-value]


def aim(
    recipe: Recipe,
    choice: Choice,
    data: ImageData,
    table: Table,
    goal: Goal,
    *,
    memory_budget: int | None = None,
    device: torch.device | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Aim:
    """Choose sparsities of layers for a time.

    Args:
        recipe: That `measurable` takes.
        choice: The model, with its weights.
        data: Calibration images come from its training images.
        table: What layers save.
        goal: Time, and sparsities that the table has.
        memory_budget: Of pruning, in bytes.
        device: Where gradients are taken, by default what `device.choose` says.
        report: Told what goes on.

    Raises:
        PruningError: The time cannot be reached, or needs no pruning.
    """
    if goal.target_ms >= table.dense_ms:
        raise PruningError(
            f"{goal.target_ms:g} ms need no pruning: dense, the model takes about {table.dense_ms:.4g} ms",
            "ask for less time",
        )
    modifier, method = _pruner(recipe, memory_budget)
    names = _targets(recipe, modifier, models.shapes(choice))
    _require_reachable(table, names, goal)
    subject = subject_of(
        choice, data, targets=names, num_images=modifier.num_images, seed=recipe.training.seed, device=device
    )
    points = _points(subject, modifier, method, goal.sparsities, report)
    options = _options(points, table)
    (plan,) = plans(options, [goal.target_ms], fixed_ms=table.dense_ms)
    best = front(options, fixed_ms=table.dense_ms)
    return Aim(table, options, plan, best, aimed(recipe, modifier, plan, points))


def _require_reachable(table: Table, names: Sequence[str], goal: Goal) -> None:
    """Refuse a time that no sparsities reach, before gradients are taken."""
    options = {
        name: [Option(0.0, 0.0, 0.0), *(Option(s, -table.saved_ms[name][s], 0.0) for s in goal.sparsities)]
        for name in names
    }
    plans(options, [goal.target_ms], fixed_ms=table.dense_ms, num_ticks=1)


def _pruner(recipe: Recipe, memory_budget: int | None) -> tuple[GradientPruningModifier, OViT | WoodFisher | MFAC]:
    """The one modifier that prunes, and its method, whose elimination gives curves."""
    modifier = recipe.only(
        PruningModifier, "a target latency needs one pruning modifier", "for example recipes/oneshot_ovit.yaml"
    )
    # What does not fit in memory is taken again: there is no run's folder yet to spill to.
    kept = modifier.model_copy(update={"spill": False}) if isinstance(modifier, FisherPruningModifier) else modifier
    method = method_of(kept, memory_budget) if isinstance(modifier, GradientPruningModifier) else None
    if not (isinstance(modifier, GradientPruningModifier) and isinstance(method, OViT | WoodFisher | MFAC)):
        raise RecipeError(
            f"{recipe.source}: {type(modifier).__name__} predicts no loss of layers, a target latency needs it",
            "use OViTPruningModifier, OBSPruningModifier or MFACPruningModifier",
        )
    if method.spread.bounded:
        raise RecipeError(
            f"{recipe.source}: bounds on sparsity and a target latency, which sets them", "leave the bounds out"
        )
    within_layers = "marginal" if modifier.allocation in LAYER_RULES else modifier.allocation  # as shares do, too
    return modifier, replace(method, allocation=within_layers)


def _targets(recipe: Recipe, modifier: PruningModifier, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of the weights that the modifier prunes."""
    places = zip(recipe.modifiers, recipe.places, strict=True)
    return resolve(recipe, shapes)[next(place for one, place in places if one is modifier)]


def _points(
    subject: Subject,
    modifier: GradientPruningModifier,
    method: OViT | WoodFisher | MFAC,
    sparsities: Sequence[float],
    report: Callable[[str], None],
) -> list[Point]:
    """Predicted losses of every layer at every sparsity, from one pass over the gradients."""
    teacher = copy.deepcopy(subject.model) if modifier.labels == "teacher" else None
    subject = replace(subject, calibration=calibrated(modifier, subject.calibration, teacher))
    return sensitivity(subject, method, sparsities, report=report)  # type: ignore[arg-type]


def _options(points: Sequence[Point], table: Table) -> dict[str, list[Option]]:
    """Dense, and every sparsity of each layer."""
    options: dict[str, list[Option]] = {}
    for point in points:
        saved = table.saved_ms[point.layer][point.sparsity]
        own = options.setdefault(point.layer, [Option(0.0, 0.0, 0.0)])
        own.append(Option(point.sparsity, -saved, max(0.0, point.predicted_loss)))
    return options


def aimed(recipe: Recipe, modifier: PruningModifier, plan: Plan, points: Sequence[Point]) -> Recipe:
    """``recipe`` with the plan's sparsities as ceilings of its layers, and a final sparsity that fills them."""
    zeros: Mapping[str, int] = {
        point.layer: point.zeros if plan.sparsities[point.layer] else 0
        for point in points
        if plan.sparsities[point.layer] in (0.0, point.sparsity)
    }
    sizes = {point.layer: point.weights for point in points}
    final = sum(zeros.values()) / sum(sizes.values())
    ceilings = {name: math.ceil(zeros[name] / sizes[name] / _STEP) * _STEP for name in zeros}
    values = modifier.model_dump(exclude_unset=True) | {
        "final_sparsity": final,
        "max_sparsity": {name: round(ceiling, 9) for name, ceiling in ceilings.items()},
    }
    if not modifier.starts_from_own:
        values["init_sparsity"] = min(modifier.first_sparsity, final)
        if modifier.first_sparsity == modifier.final_sparsity:
            values["init_sparsity"] = final
    other = type(modifier).model_validate(values)
    modifiers = tuple(other if one is modifier else one for one in recipe.modifiers)
    changed = recipe.model_copy(update={"modifiers": modifiers})
    return changed.model_copy(update={"text": write(changed, header_of(recipe.text))})
