"""The way to a sparsity of every method that looks at curvature: gradients, order, allocation, update.

In pieces if wanted: a jump in sparsity is made in several steps, each with curvature taken at the weights that the step
before has left.
"""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, get_args

from torch import nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.allocation import Rule, allocate
from ovit_deploy.pruning.damping import check_damping
from ovit_deploy.pruning.gradients import check_against_autograd
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report, budget_for, write
from ovit_deploy.pruning.patterns import parse_pattern
from ovit_deploy.pruning.rounding import round_all
from ovit_deploy.pruning.samples import take, too_few
from ovit_deploy.pruning.scheme import Scheme
from ovit_deploy.pruning.shelf import NOWHERE
from ovit_deploy.pruning.spread import Spread
from ovit_deploy.pruning.streaming import Problem, Settled, Solution, compensate_all, eliminate_all, held_bytes
from ovit_deploy.pruning.tiles import from_tiles


class Allocated(Protocol):
    """The fields that say which weights may go together, and from which layers."""

    @property
    def pattern(self) -> str:
        """Which weights may be zero together: patterns.py."""
        ...

    @property
    def allocation(self) -> Rule:
        """How removals are spread over blocks and layers: allocation.py."""
        ...

    @property
    def spread(self) -> Spread:
        """Bounds and prices of layers, and settings of OWL."""
        ...


class Settings(Allocated, Protocol):
    """The fields that these methods share."""

    @property
    def block_size(self) -> int:
        """B; each tensor takes the smallest divisor of its size that is at least this."""
        ...

    @property
    def num_grads(self) -> int:
        """m, the calibration samples whose gradients are taken."""
        ...

    @property
    def damping(self) -> float:
        """Added to the diagonal of the Fisher matrices."""
        ...

    @property
    def memory_budget(self) -> int | None:
        """Bytes for curvature and work on it; None takes half of the free memory."""
        ...


def check_settings(settings: Settings) -> None:
    """Refuse numbers that mean nothing."""
    for name in ("block_size", "num_grads", "num_recomputations"):
        if getattr(settings, name, 1) < 1:
            raise PruningError(f"{name} is {getattr(settings, name)}, but at least 1 is needed")
    if not (math.isfinite(settings.damping) and settings.damping >= 0):
        raise PruningError(f"damping is {settings.damping}, which is not a number of at least 0")
    check_rule(settings)
    check_damping(getattr(settings, "damping_kind", "absolute"))


def check_rule(settings: Allocated) -> None:
    """Refuse an allocation that there is not, or that does not go with the pattern."""
    if settings.allocation not in get_args(Rule):
        choices = ", ".join(get_args(Rule))
        raise PruningError(f"unknown allocation {settings.allocation!r}", f"choose one of {choices}")
    settings.spread.check(settings.allocation, parse_pattern(settings.pattern))


def required(calibration: Calibration | None, method: str, num_grads: int) -> Calibration:
    """Calibration images, of which there are enough."""
    if calibration is None:
        raise PruningError(f"{method} needs calibration images", "give a calibration stream, or prune by magnitude")
    if calibration.num_gradients < num_grads:
        raise too_few(calibration.num_samples, num_grads, calibration.images_per_gradient)
    return calibration


def problem_of(
    settings: Settings,
    scheme: Scheme,
    model: nn.Module,
    masks: Masks,
    calibration: Calibration,
    report: Report | None = None,
    spill: Path | None = None,
) -> Problem:
    """The model as it is now, to be taken through elimination."""
    return Problem(
        model,
        masks,
        calibration,
        num_grads=settings.num_grads,
        block_size=settings.block_size,
        damping=settings.damping,
        memory_budget=budget_for(model, settings.memory_budget),
        report=report or (lambda text: None),
        scheme=scheme,
        spread=settings.spread,
        spill=spill,
    )


def check_gradients(model: nn.Module, masks: Masks, calibration: Calibration, num_grads: int) -> None:
    """Compare per-sample gradients with autograd's, on the first samples."""
    images, labels = next(take(calibration.batches(), min(2, num_grads)))
    check_against_autograd(model, masks, images, labels)


def prune_in_pieces(problem: Problem, sparsity: float, *, rule: Rule, num_pieces: int = 1) -> Pruned:
    """From the present zeros to a sparsity; the model is left as it was found.

    Args:
        problem: Where to start.
        sparsity: Fraction of zeros wanted over all targets together.
        rule: How removals are spread over blocks.
        num_pieces: Steps, each with curvature of its own; several are begun again if they are cut off.
    """
    if num_pieces > 1:
        problem = replace(problem, calibration=replace(problem.calibration, shelf=NOWHERE))
    model, masks, pattern = problem.model, problem.masks, problem.scheme.pattern
    before = pattern.weights(model, masks)
    total = sum(mask.numel() for mask in masks.values())
    goal, present = pattern.num_zeros(masks, sparsity), total - sum(int(mask.sum()) for mask in masks.values())
    check_gradients(model, masks, problem.calibration, problem.num_grads)
    pieces: list[Pruned] = []
    try:
        for piece in range(1, num_pieces + 1):
            units = (goal - present) // pattern.unit * piece // num_pieces
            pieces.append(prune_once(problem, present + units * pattern.unit, rule))
            problem = replace(problem, masks=pieces[-1].masks)
            if piece < num_pieces:
                write(model, pieces[-1].weights)
    finally:
        write(model, before)
    return joined(pieces)


def prune_once(problem: Problem, zeros: int, rule: Rule) -> Pruned:
    """From curvature at the present weights to ``zeros`` zeros."""
    start = time.perf_counter()
    pruned = settle(problem, eliminate_all(problem), zeros, rule)
    return replace(pruned, details=pruned.details | {"seconds": time.perf_counter() - start})


def settle(problem: Problem, solution: Solution, zeros: int, rule: Rule) -> Pruned:
    """From curves to ``zeros`` zeros; the same solution serves any number of them."""
    start, pattern = time.perf_counter(), problem.scheme.pattern
    problem.report(f"allocating {zeros} zeros by the {rule} rule")
    layers = problem.spread.layers(
        problem.model, problem.masks, rule=rule, pattern=pattern, calibration=problem.calibration
    )
    counts = allocate(solution.curves, zeros // pattern.unit, rule=rule, layers=layers)
    settled = compensate_all(problem, solution, counts)
    if problem.weight_bits is not None:
        assert solution.fishers is not None
        settled = round_all(problem, solution.fishers, settled)
    masks = {
        name: from_tiles(kept_KB.flatten(), problem.masks[name].shape, pattern.tile).to(problem.masks[name].device)
        for name, kept_KB in settled.kept.items()
    }
    record = details(problem, solution, settled, time.perf_counter() - start)
    return Pruned(masks, settled.weights, settled.loss, record)


def details(problem: Problem, solution: Solution, settled: Settled, seconds: float) -> dict[str, Any]:
    """What the run's record keeps of one piece."""
    return {
        "num_gradients": problem.num_grads,
        "calibration_loss": solution.mean_loss,
        "jitter": {name: jitter for name, jitter in solution.jitter.items() if jitter > 0},
        "swaps": settled.swaps,
        "groups": len(solution.groups),
        "passes": solution.passes,
        "fisher_bytes": held_bytes(problem, solution.groups),
        "spilled_bytes": solution.spilled.num_bytes if solution.spilled else 0,
        "memory_budget": problem.memory_budget,
        "seconds": seconds,
    }


def joined(pieces: list[Pruned]) -> Pruned:
    """The last piece, with the losses of all and each one's details."""
    last = pieces[-1]
    loss = sum(piece.predicted_loss or 0.0 for piece in pieces)
    record = last.details if len(pieces) == 1 else last.details | {"pieces": [piece.details for piece in pieces]}
    return Pruned(last.masks, last.weights, loss, record)
