"""oViT: correlation-aware pruning with block Fisher matrices.

"oViT: An Accurate Second-Order Pruning Framework for Vision Transformers", Kuznedelev et al., arXiv 2210.09223; its
second version is "CAP: Correlation-Aware Pruning for Highly-Accurate Sparse Vision Models", NeurIPS 2023. The steps,
in order::

    gradients   g_i of m calibration samples                                     gradients.py
    Fisher      F_b = damping I + 1/m sum_i g_ib g_ib^T for each block           fisher.py
    eliminate   greedy OBS in each block: the order and the loss of each weight  kernels/eliminate
    allocate    how many weights each block loses, to an exact total             allocation.py
    compensate  the best values of what is kept, u_P = w_P + F_PP^-1 F_PS w_S    fisher.py

streaming.py strings them together within a memory budget.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import psutil
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.allocation import Rule, allocate
from ovit_deploy.pruning.fisher import take, too_few
from ovit_deploy.pruning.gradients import check_against_autograd
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report, num_zeros, target_weights
from ovit_deploy.pruning.streaming import Problem, Solution, compensate_all, eliminate_all


@dataclass(frozen=True)
class OViT:
    """Prune with second-order information, at the lowest predicted loss.

    Args:
        block_size: B; each tensor takes the smallest divisor of its size that is at least this.
        num_grads: m, the calibration samples whose gradients make the Fisher matrices.
        damping: Added to the diagonal of the Fisher matrices.
        allocation: How removals are spread over blocks: hull, marginal, cumulative or uniform.
        num_recomputations: Pieces in which the jump in sparsity is made, each with Fisher matrices of its own.
        memory_budget: Bytes for Fisher matrices and work on them; None takes half of the free memory.
    """

    block_size: int = 192
    num_grads: int = 4096
    damping: float = 1e-8
    allocation: Rule = "hull"
    num_recomputations: int = 1
    memory_budget: int | None = None

    def __post_init__(self) -> None:
        if self.allocation not in get_args(Rule):
            choices = ", ".join(get_args(Rule))
            raise PruningError(f"unknown allocation {self.allocation!r}", f"choose one of {choices}")
        for name in ("block_size", "num_grads", "num_recomputations"):
            if getattr(self, name) < 1:
                raise PruningError(f"{name} is {getattr(self, name)}, but at least 1 is needed")
        if not (math.isfinite(self.damping) and self.damping >= 0):
            raise PruningError(f"damping is {self.damping}, which is not a number of at least 0")

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """See :class:`ovit_deploy.pruning.method.Method`. ``predicted_loss`` adds up the pieces of the jump."""
        if calibration is None:
            raise PruningError("oViT needs calibration images", "give a calibration stream, or prune by magnitude")
        before = target_weights(model, masks)
        total = sum(mask.numel() for mask in masks.values())
        goal, present = num_zeros(masks, sparsity), total - sum(int(mask.sum()) for mask in masks.values())
        if calibration.num_samples < self.num_grads:
            raise too_few(calibration.num_samples, self.num_grads)
        images, labels = next(take(calibration.batches(), min(2, self.num_grads)))
        check_against_autograd(model, masks, images, labels)
        pieces: list[Pruned] = []
        try:
            for piece in range(1, self.num_recomputations + 1):
                zeros = present + (goal - present) * piece // self.num_recomputations
                problem = self.problem(model, masks, calibration, report)
                pieces.append(prune_once(problem, zeros, self.allocation))
                masks = pieces[-1].masks
                if piece < self.num_recomputations:
                    write(model, pieces[-1].weights)
        finally:
            write(model, before)
        return joined(pieces)

    def problem(
        self, model: nn.Module, masks: Masks, calibration: Calibration, report: Report | None = None
    ) -> Problem:
        """The model as it is now, to be taken through elimination."""
        budget = self.memory_budget
        return Problem(
            model,
            masks,
            calibration,
            num_grads=self.num_grads,
            block_size=self.block_size,
            damping=self.damping,
            memory_budget=psutil.virtual_memory().available // 2 if budget is None else budget,
            report=report or (lambda text: None),
        )


def prune_once(problem: Problem, zeros: int, rule: Rule) -> Pruned:
    """From Fisher matrices at the present weights to ``zeros`` zeros."""
    start = time.perf_counter()
    solution = eliminate_all(problem)
    problem.report(f"allocating {zeros} zeros by the {rule} rule")
    counts = allocate(solution.curves, zeros, rule=rule)
    weights, loss = compensate_all(problem, solution, counts)
    masks = {
        name: (curve.rank_KB > counts[name][:, None]).view_as(weights[name]).to(problem.masks[name].device)
        for name, curve in solution.curves.items()
    }
    return Pruned(masks, weights, loss, details(problem, solution, time.perf_counter() - start))


def details(problem: Problem, solution: Solution, seconds: float) -> dict[str, Any]:
    """What the run's record keeps of one piece."""
    spans = [span for group in solution.groups for span in group]
    return {
        "num_gradients": problem.num_grads,
        "calibration_loss": solution.mean_loss,
        "jitter": {name: jitter for name, jitter in solution.jitter.items() if jitter > 0},
        "groups": len(solution.groups),
        "passes": 1 if solution.fishers else 2 * len(solution.groups),
        "fisher_bytes": sum(4 * len(span) * span.block_size**2 for span in spans),
        "memory_budget": problem.memory_budget,
        "seconds": seconds,
    }


def write(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the model, in place."""
    for name, weight in weights.items():
        model.get_parameter(name).data.copy_(weight)


def joined(pieces: list[Pruned]) -> Pruned:
    """The last piece, with the losses of all and each one's details."""
    last = pieces[-1]
    loss = sum(piece.predicted_loss or 0.0 for piece in pieces)
    record = last.details if len(pieces) == 1 else last.details | {"pieces": [piece.details for piece in pieces]}
    return Pruned(last.masks, last.weights, loss, record)
