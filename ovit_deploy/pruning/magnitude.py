"""Magnitude pruning: the smallest weights go, and nothing compensates.

Global (Han et al. 2015, arXiv 1506.02626, over all layers together) and by layers (every layer to the same sparsity, or
to its share by ERK or OWL). The number of zeros is ``round(sparsity * n)``; of equal magnitudes the one that stands
first goes first. With a pattern (patterns.py) the N largest of each M stay, or whole groups go, smallest norm first.

To allocation.py removing a weight costs ``w^2 / 2``, the OBS loss under a Hessian that is the identity; that orders
weights as their magnitudes do, and gives prices the meaning that they have elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.allocation import Curve, Rule, allocate
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.patterns import Pattern, parse_pattern
from ovit_deploy.pruning.spread import FREE, LayerRule, Layers, Spread


@dataclass(frozen=True)
class GlobalMagnitude:
    """The smallest weights of all targets together.

    Args:
        pattern: ``unstructured``, ``N:M``, ``block4`` or ``RxC``: patterns.py. N:M leaves nothing to choose between
            layers.
        spread: Bounds and prices of layers; prices look at one calibration image.
    """

    pattern: str = "unstructured"
    spread: Spread = FREE

    def __post_init__(self) -> None:
        self.spread.check("marginal", parse_pattern(self.pattern))

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """See :class:`ovit_deploy.pruning.method.Method`; looks at no images, unless for prices."""
        return prune_by_magnitude(model, masks, sparsity, self.pattern, "marginal", self.spread, calibration)


@dataclass(frozen=True)
class UniformMagnitude:
    """The smallest weights of each target, every target to the same sparsity or to its share.

    Args:
        pattern: ``unstructured``, ``N:M``, ``block4`` or ``RxC``: patterns.py.
        allocation: ``uniform``, ``erk`` or ``owl``, which looks at calibration images.
        spread: Bounds of layers, and settings of OWL.
    """

    pattern: str = "unstructured"
    allocation: LayerRule = "uniform"
    spread: Spread = FREE

    def __post_init__(self) -> None:
        check_layer_rule(self.allocation)
        self.spread.check(self.allocation, parse_pattern(self.pattern))

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """See :class:`ovit_deploy.pruning.method.Method`; looks at no images, unless for OWL."""
        return prune_by_magnitude(model, masks, sparsity, self.pattern, self.allocation, self.spread, calibration)


def check_layer_rule(allocation: str) -> None:
    """Refuse an allocation that is no rule for layers as a whole."""
    if allocation not in get_args(LayerRule):
        raise PruningError(f"unknown allocation {allocation!r}", f"choose one of {', '.join(get_args(LayerRule))}")


def prune_by_magnitude(
    model: nn.Module,
    masks: Masks,
    sparsity: float,
    pattern_name: str,
    rule: Rule,
    spread: Spread,
    calibration: Calibration | None,
) -> Pruned:
    """Drop the smallest."""
    pattern = parse_pattern(pattern_name).on(masks)
    weights, zeros = pattern.weights(model, masks), pattern.num_zeros(masks, sparsity)
    layers = spread.layers(model, masks, rule=rule, pattern=pattern, calibration=calibration)
    losses = {name: weight.double().square() / 2 for name, weight in weights.items()}
    return prune_by_losses(weights, masks, losses, zeros, pattern=pattern, rule=rule, layers=layers)


def prune_by_losses(
    weights: Mapping[str, Tensor],
    masks: Masks,
    losses: Mapping[str, Tensor],
    zeros: int,
    *,
    pattern: Pattern,
    rule: Rule,
    layers: Layers,
) -> Pruned:
    """Drop the cheapest: so many of each group where the pattern says so, else as ``rule`` spreads the removals.

    Args:
        weights: Present values.
        masks: What is kept of them at present.
        losses: Of removing each weight by itself, not negative; those of a group that goes whole add up.
        zeros: In all, those that are there already included.
        pattern: Laid on the targets.
        rule: See allocation.py.
        layers: What the rule looks at.
    """
    units = {name: unit_losses(losses[name], mask, pattern) for name, mask in masks.items()}
    if pattern.limited:
        kept = {name: largest_of_groups(loss, pattern) for name, loss in units.items()}
    else:
        orders = {name: loss.argsort(stable=True) for name, loss in units.items()}
        curves = {name: sorted_curve(loss[orders[name]]) for name, loss in units.items()}
        counts = allocate(curves, zeros // pattern.unit, rule=rule, layers=layers)
        gone = {name: int((loss < 0).sum()) + int(counts[name]) for name, loss in units.items()}
        kept = {name: without(order[: gone[name]], len(order)) for name, order in orders.items()}
    return pruned_to(weights, {name: pattern.spread_out(kept[name], weight) for name, weight in weights.items()})


def unit_losses(loss: Tensor, mask: Tensor, pattern: Pattern) -> Tensor:
    """Of every unit; -1 where it is pruned already, so that it goes first."""
    return pattern.units(loss).sum(dim=1).masked_fill(~pattern.units(mask.to(loss.device)).any(dim=1), -1)


def sorted_curve(loss: Tensor) -> Curve:
    """A layer as one block, whose units go in the order of their losses, which rise."""
    rank = torch.arange(1, len(loss) + 1, dtype=torch.int32, device=loss.device) - int((loss < 0).sum())
    return Curve(rank.clamp(min=0)[None], loss.clamp(min=0)[None])


def largest_of_groups(score: Tensor, pattern: Pattern) -> Tensor:
    """Mask that drops the ``limit`` smallest scores of each group, the first of equals first."""
    order_GS = score.view(-1, pattern.group).argsort(dim=1, stable=True)
    return (order_GS.argsort(dim=1) >= pattern.limit).flatten()


def without_smallest(score: Tensor, num_removed: int) -> Tensor:
    """Mask that drops the ``num_removed`` smallest scores, the first of equals first."""
    return without(score.flatten().argsort(stable=True)[:num_removed], score.numel()).view_as(score)


def without(at: Tensor, size: int) -> Tensor:
    """Mask of ``size`` that drops what stands ``at``."""
    kept = torch.ones(size, dtype=torch.bool, device=at.device)
    kept[at] = False
    return kept


def pruned_to(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Pruned:
    """The present weights, cut to what is kept of each."""
    return Pruned(dict(masks), {name: weight.masked_fill(~masks[name], 0) for name, weight in weights.items()})
