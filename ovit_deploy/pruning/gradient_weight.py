"""Gradient times weight: the first-order estimate of what a weight's removal does to the loss of each sample.

The Taylor criterion of Molchanov et al., arXiv 1611.06440, on single weights::

    saliency    sum_i |g_i w|     over m samples; signs of different samples do not cancel
    allocation  the smallest of all targets together
    update      none

The saliencies of a group that goes whole (patterns.py) add up.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.allocation import Rule
from ovit_deploy.pruning.fisher import Span, each_gradient
from ovit_deploy.pruning.magnitude import prune_by_losses
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report, budget_for, target_weights
from ovit_deploy.pruning.patterns import parse_pattern
from ovit_deploy.pruning.second_order import check_gradients, check_rule, required
from ovit_deploy.pruning.spread import FREE, Spread


@dataclass(frozen=True)
class GradientWeight:
    """The weights of all targets together whose gradients times weights are smallest.

    Args:
        num_grads: m, the calibration samples.
        memory_budget: Bytes for gradients in the making; None takes half of the free memory.
        pattern: ``unstructured``, ``N:M``, ``block4`` or ``RxC``: patterns.py.
        allocation: How removals are spread over layers: a rule of allocation.py.
        spread: Bounds and prices of layers, and settings of OWL.
    """

    num_grads: int = 4096
    memory_budget: int | None = None
    pattern: str = "unstructured"
    allocation: Rule = "marginal"
    spread: Spread = FREE

    def __post_init__(self) -> None:
        if self.num_grads < 1:
            raise PruningError(f"num_grads is {self.num_grads}, but at least 1 is needed")
        check_rule(self)

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """See :class:`ovit_deploy.pruning.method.Method`; predicts no loss."""
        calibration = required(calibration, "gradient times weight", self.num_grads)
        pattern = parse_pattern(self.pattern).on(masks)
        pattern.weights(model, masks)
        pattern.num_zeros(masks, sparsity)  # both refuse before the work begins
        return self.choose(model, masks, self.look(model, masks, calibration, report), sparsity, calibration)

    def look(
        self, model: nn.Module, masks: Masks, calibration: Calibration, report: Report | None = None
    ) -> tuple[dict[str, Tensor], float]:
        """``sum_i |g_i|`` of every target and the mean loss of the samples, which serve every sparsity."""
        target_weights(model, masks)
        check_gradients(model, masks, calibration, self.num_grads)
        if report:
            report(f"{self.num_grads} gradients of {len(masks)} weights")
        budget = budget_for(model, self.memory_budget)
        return absolute_gradients(model, masks, calibration, num_grads=self.num_grads, work_bytes=budget)

    def choose(
        self,
        model: nn.Module,
        masks: Masks,
        looked: tuple[dict[str, Tensor], float],
        sparsity: float,
        calibration: Calibration | None = None,
    ) -> Pruned:
        """What a sparsity leaves of the targets, from what :meth:`look` found at the same weights."""
        pattern, (totals, mean_loss) = parse_pattern(self.pattern).on(masks), looked
        weights, zeros = pattern.weights(model, masks), pattern.num_zeros(masks, sparsity)
        layers = self.spread.layers(model, masks, rule=self.allocation, pattern=pattern, calibration=calibration)
        losses = {name: (weight.abs() * totals[name]).double() for name, weight in weights.items()}
        pruned = prune_by_losses(weights, masks, losses, zeros, pattern=pattern, rule=self.allocation, layers=layers)
        pruned.details.update(num_gradients=self.num_grads, calibration_loss=mean_loss)
        return pruned


def absolute_gradients(
    model: nn.Module, masks: Masks, calibration: Calibration, *, num_grads: int, work_bytes: int
) -> tuple[dict[str, Tensor], float]:
    """``sum_i |g_i|`` of every weight, shaped like it, and the mean loss of the samples."""
    totals = {name: torch.zeros_like(model.get_parameter(name).detach()).flatten(1) for name in masks}
    spans = [Span(name, 0, len(total), total.shape[1]) for name, total in totals.items()]

    def add(span: Span, part: slice, first: int, gradient_KNB: Tensor) -> None:
        totals[span.name][part] += gradient_KNB.abs().sum(dim=1)

    mean_loss = each_gradient(
        model,
        spans,
        masks,
        calibration,
        num_grads=num_grads,
        work_bytes=work_bytes,
        consume=add,
        sums=[*totals.values()],
    )
    for total in totals.values():
        calibration.ranks.reduce(total)
    return {name: total.reshape(masks[name].shape) for name, total in totals.items()}, mean_loss
