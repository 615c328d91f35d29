"""The way to a sparsity of every method that looks at curvature: gradients, order, allocation, update.

In pieces if wanted: a jump in sparsity is made in several steps, each with curvature taken at the weights that the step
before has left.
"""

import math
import time
from dataclasses import replace
from typing import Any, Protocol

import psutil
from torch import nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.allocation import Rule, allocate
from ovit_deploy.pruning.fisher import take, too_few
from ovit_deploy.pruning.gradients import check_against_autograd
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report, write
from ovit_deploy.pruning.scheme import Scheme
from ovit_deploy.pruning.streaming import Problem, Settled, Solution, compensate_all, eliminate_all


class Settings(Protocol):
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


def required(calibration: Calibration | None, method: str, num_grads: int) -> Calibration:
    """Calibration images, of which there are enough."""
    if calibration is None:
        raise PruningError(f"{method} needs calibration images", "give a calibration stream, or prune by magnitude")
    if calibration.num_samples < num_grads:
        raise too_few(calibration.num_samples, num_grads)
    return calibration


def problem_of(
    settings: Settings,
    scheme: Scheme,
    model: nn.Module,
    masks: Masks,
    calibration: Calibration,
    report: Report | None = None,
) -> Problem:
    """The model as it is now, to be taken through elimination."""
    budget = settings.memory_budget
    return Problem(
        model,
        masks,
        calibration,
        num_grads=settings.num_grads,
        block_size=settings.block_size,
        damping=settings.damping,
        memory_budget=psutil.virtual_memory().available // 2 if budget is None else budget,
        report=report or (lambda text: None),
        scheme=scheme,
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
        num_pieces: Steps, each with curvature of its own.
    """
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
    start, unit = time.perf_counter(), problem.scheme.pattern.unit
    problem.report(f"allocating {zeros} zeros by the {rule} rule")
    counts = allocate(solution.curves, zeros // unit, rule=rule)
    settled = compensate_all(problem, solution, counts)
    masks = {
        name: kept_KB.view_as(settled.weights[name]).to(problem.masks[name].device)
        for name, kept_KB in settled.kept.items()
    }
    record = details(problem, solution, settled, time.perf_counter() - start)
    return Pruned(masks, settled.weights, settled.loss, record)


def details(problem: Problem, solution: Solution, settled: Settled, seconds: float) -> dict[str, Any]:
    """What the run's record keeps of one piece."""
    spans = [span for group in solution.groups for span in group]
    rows = {span: problem.scheme.num_rows(span.block_size, problem.num_grads) for span in spans}
    return {
        "num_gradients": problem.num_grads,
        "calibration_loss": solution.mean_loss,
        "jitter": {name: jitter for name, jitter in solution.jitter.items() if jitter > 0},
        "swaps": settled.swaps,
        "groups": len(solution.groups),
        "passes": 1 if solution.fishers else 2 * len(solution.groups),
        "fisher_bytes": sum(4 * len(span) * rows[span] * span.block_size for span in spans),
        "memory_budget": problem.memory_budget,
        "seconds": seconds,
    }


def joined(pieces: list[Pruned]) -> Pruned:
    """The last piece, with the losses of all and each one's details."""
    last = pieces[-1]
    loss = sum(piece.predicted_loss or 0.0 for piece in pieces)
    record = last.details if len(pieces) == 1 else last.details | {"pieces": [piece.details for piece in pieces]}
    return Pruned(last.masks, last.weights, loss, record)
