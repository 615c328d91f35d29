"""Wanda: weights that are small, or that meet small inputs.

"A Simple and Effective Pruning Approach for Large Language Models", Sun et al., arXiv 2306.11695, section 3. The score
of weight w_ij is ``|w_ij| |x_j|_2``, with x_j what input j was over all calibration tokens; scores are compared within
an output row, each row loses the same share, and nothing compensates. For a row that is the diagonal of the input
Hessian as curvature: ``score^2 / 2`` is the increase of its squared output error if inputs were not correlated.

Groups that go whole are compared by the norm of their scores: a block of R rows among the blocks of the same rows.

Shape suffixes: G groups of a convolution, O outputs of a group, I inputs, P by Q units.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovit_deploy.pruning.hessian import images_for, input_norms
from ovit_deploy.pruning.layerwise import (
    as_matrix,
    check_settings,
    in_units,
    layer_zeros,
    out_of_units,
    smallest_of_rows,
    to_masks,
)
from ovit_deploy.pruning.magnitude import pruned_to
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.patterns import Pattern
from ovit_deploy.pruning.shares import in_proportion
from ovit_deploy.pruning.spread import FREE, LayerRule, Spread


@dataclass(frozen=True)
class Wanda:
    """Prune by ``|w| |x|_2`` within each output row, every layer to the same sparsity.

    Args:
        num_samples: Calibration images whose inputs are measured.
        pattern: ``unstructured``, ``N:M``, ``block4`` or ``RxC``: patterns.py.
        allocation: How zeros are shared out to layers: ``uniform``, ``erk`` or ``owl``.
        spread: Bounds of layers, and settings of OWL.
    """

    num_samples: int = 128
    pattern: str = "unstructured"
    allocation: LayerRule = "uniform"
    spread: Spread = FREE

    def __post_init__(self) -> None:
        check_settings(self, num_samples=self.num_samples)

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """See :class:`ovit_deploy.pruning.method.Method`. Predicts no loss."""
        weights, pattern, zeros = layer_zeros(self, model, masks, sparsity, calibration)
        images = images_for("Wanda", calibration, self.num_samples)
        if report:
            report(f"inputs of {len(masks)} layers over {self.num_samples} images")
        norms = input_norms(model, list(masks), images)
        kept = {name: keep(weights[name], masks[name], norms[name], zeros[name], pattern) for name in masks}
        pruned = pruned_to(weights, {name: part.view_as(weights[name]) for name, part in kept.items()})
        return Pruned(to_masks(kept, masks), pruned.weights, None, {"num_samples": self.num_samples})


def keep(weight: Tensor, mask: Tensor, norm_GI: Tensor, num_zeros: int, pattern: Pattern) -> Tensor:
    """Which weights of a layer are kept [G, O, I]."""
    kept_GOI = as_matrix(mask.to(weight.device), norm_GI)
    score_GOI = (as_matrix(weight, norm_GI).double() * norm_GI[:, None, :]).square().masked_fill(~kept_GOI, -1)
    if pattern.limited:
        return ~smallest_of_rows(score_GOI.unflatten(2, (-1, pattern.group)), pattern.limit).flatten(2)
    units_GPQ, there_GPQ = in_units(score_GOI, pattern.tile), in_units(kept_GOI.double(), pattern.tile) > 0
    gone_GPQ = smallest_of_rows(units_GPQ.masked_fill(~there_GPQ, -1), row_zeros(there_GPQ, num_zeros // pattern.unit))
    return ~out_of_units(gone_GPQ, pattern.tile)


def row_zeros(kept_GOI: Tensor, num_zeros: int) -> Tensor:
    """Zeros of each row [G, O]: what is still there loses the same share in each, and the total is exact."""
    present_GO = (~kept_GOI).sum(dim=2)
    removed = in_proportion(kept_GOI.sum(dim=2).flatten().tolist(), num_zeros - int(present_GO.sum()))
    return present_GO + torch.tensor(removed, device=kept_GOI.device).view_as(present_GO)
