"""Whole filters or channels by their L2 norm, as SparseML's StructuredPruningModifier takes them ("Pruning Filters for
Efficient ConvNets", Li et al., arXiv 1608.08710).

A filter is all that makes one output of a layer, a channel all that reads one input. Every layer, or group of layers
that share their zeros, is pruned to the same sparsity; the score of a group is the sum of its layers' norms.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.magnitude import pruned_to, without
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report


@dataclass(frozen=True)
class FilterMagnitude:
    """The filters (``axis`` 0) or channels (``axis`` 1) of the smallest norm go.

    Args:
        axis: Of the weight.
        groups: Names of weights that share their zeros; all others are alone.
    """

    axis: int = 0
    groups: Sequence[Sequence[str]] = ()

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """See :class:`ovit_deploy.pruning.method.Method`; looks at no images."""
        grouped = {name for group in self.groups for name in group}
        lacking = sorted(grouped - masks.keys())
        if lacking:
            raise PruningError(f"param_groups: {', '.join(lacking)} not among params", "name them in params, too")
        weights = {name: model.get_parameter(name).detach() for name in masks}
        kept: dict[str, Tensor] = {}
        for names in [*self.groups, *([name] for name in masks if name not in grouped)]:
            kept |= self._kept({name: weights[name] for name in names}, masks, sparsity)
        return pruned_to(weights, {name: kept[name] for name in masks})

    def _kept(self, weights: dict[str, Tensor], masks: Masks, sparsity: float) -> dict[str, Tensor]:
        counts = {name: weight.shape[self.axis] if weight.ndim > self.axis else 0 for name, weight in weights.items()}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            told = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise PruningError(
                f"these cannot share {('filters', 'channels')[self.axis]}: {told}",
                "group layers of as many, and leave vectors out of params",
            )
        score, alive = 0, False
        for name, weight in weights.items():
            rows = weight.double().movedim(self.axis, 0).flatten(1)
            score = score + rows.norm(dim=1)
            alive = alive | masks[name].movedim(self.axis, 0).flatten(1).any(1).to(rows.device)
        assert isinstance(score, Tensor) and isinstance(alive, Tensor)
        order = score.masked_fill(~alive, -1).argsort(stable=True)
        stays = without(order[: max(round(sparsity * len(score)), int((~alive).sum()))], len(score))
        return {name: masks[name] & self._spread(stays, weight) for name, weight in weights.items()}

    def _spread(self, stays: Tensor, weight: Tensor) -> Tensor:
        sizes = [1] * weight.ndim
        sizes[self.axis] = -1
        return torch.ones_like(weight, dtype=torch.bool) & stays.view(sizes)
