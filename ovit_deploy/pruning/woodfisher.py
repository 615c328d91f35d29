"""WoodFisher: every weight is judged once, as if it were the only one to go.

"WoodFisher: Efficient Second-Order Approximation for Neural Network Compression", Singh & Alistarh, arXiv 2004.14340;
for transformers "The Optimal BERT Surgeon", Kurtic et al., arXiv 2203.07259. With the block Fisher matrices of
fisher.py::

    saliency    w_p^2 / (2 [F^-1]_pp)                                     once, before anything is removed
    allocation  the smallest of all targets together
    update      u = w - sum over pruned p of w_p / [F^-1]_pp F^-1 e_p     each as if alone; then zeros at the pruned

Weights that stand in for each other look cheap together and are not: what oViT's greedy order takes into account.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovit_deploy.pruning.allocation import Curve
from ovit_deploy.pruning.fisher import invert
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.scheme import FisherScheme
from ovit_deploy.pruning.second_order import check_settings, problem_of, prune_in_pieces, required
from ovit_deploy.pruning.streaming import Problem


@dataclass(frozen=True)
class WoodFisher:
    """The smallest OBS saliencies of all targets together, judged once.

    Args:
        block_size: B; each tensor takes the smallest divisor of its size that is at least this.
        num_grads: m, the calibration samples whose gradients make the Fisher matrices.
        damping: Added to the diagonal of the Fisher matrices.
        memory_budget: Bytes for Fisher matrices and work on them; None takes half of the free memory.
    """

    block_size: int = 192
    num_grads: int = 4096
    damping: float = 1e-6
    memory_budget: int | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """See :class:`ovit_deploy.pruning.method.Method`."""
        calibration = required(calibration, "WoodFisher", self.num_grads)
        return prune_in_pieces(self.problem(model, masks, calibration, report), sparsity, rule="marginal")

    def problem(
        self, model: nn.Module, masks: Masks, calibration: Calibration, report: Report | None = None
    ) -> Problem:
        """The model as it is now, to be taken through elimination."""
        return problem_of(self, JudgedOnce(), model, masks, calibration, report)


@dataclass(frozen=True)
class JudgedOnce(FisherScheme):
    """Saliencies from the whole inverse, and the sum of single-weight updates."""

    def order(self, w_KB: Tensor, held_KBB: Tensor, active_KB: Tensor) -> tuple[Curve, Tensor]:
        """See :class:`~ovit_deploy.pruning.scheme.Scheme`."""
        finv_KBB, jitter_K = invert(held_KBB, active_KB)
        return by_saliency(w_KB, finv_KBB.diagonal(dim1=1, dim2=2), active_KB), jitter_K

    def update(self, w_KB: Tensor, held_KBB: Tensor, active_KB: Tensor, kept_KB: Tensor) -> Tensor:
        """See :class:`~ovit_deploy.pruning.scheme.Scheme`."""
        finv_KBB, _ = invert(held_KBB, active_KB)
        pull_KB = pull(w_KB, finv_KBB.diagonal(dim1=1, dim2=2), kept_KB)
        return (w_KB - (finv_KBB @ pull_KB[:, :, None]).squeeze(2)).masked_fill(~kept_KB, 0)


def by_saliency(w_KB: Tensor, diag_KB: Tensor, active_KB: Tensor) -> Curve:
    """The curve that removes weights by ``w_p^2 / (2 [F^-1]_pp)``, of equals the first first."""
    saliency_KB = (w_KB.double().square() / (2 * diag_KB)).masked_fill(~active_KB, torch.inf)
    rank_KB = saliency_KB.argsort(dim=1, stable=True).argsort(dim=1).int() + 1
    return Curve(rank_KB.masked_fill(~active_KB, 0), saliency_KB.masked_fill(~active_KB, 0))


def pull(w_KB: Tensor, diag_KB: Tensor, kept_KB: Tensor) -> Tensor:
    """``w_p / [F^-1]_pp`` at the pruned weights, 0 elsewhere: times F^-1 it is the sum of their updates."""
    return (w_KB.double() / diag_KB).masked_fill(kept_KB, 0)
