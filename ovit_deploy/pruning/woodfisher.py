"""WoodFisher: every weight is judged once, as if it were the only one to go.

"WoodFisher: Efficient Second-Order Approximation for Neural Network Compression", Singh & Alistarh, arXiv 2004.14340;
for transformers "The Optimal BERT Surgeon", Kurtic et al., arXiv 2203.07259. With the block Fisher matrices of
fisher.py::

    saliency    w_p^2 / (2 [F^-1]_pp)                                     once, before anything is removed
    allocation  the smallest of all targets together
    update      u = w - sum over pruned p of w_p / [F^-1]_pp F^-1 e_p     each as if alone; then zeros at the pruned

Weights that stand in for each other look cheap together and are not: what oViT's greedy order takes into account.

Of N:M groups the N weights with the largest saliencies stay. Groups q that go whole are judged as one, each as if it
were the only group to go, with ``[F^-1]_qq`` in the place of ``[F^-1]_pp`` ("The Optimal BERT Surgeon", section 3.2)::

    saliency    1/2 w_q^T ([F^-1]_qq)^-1 w_q
    update      u = w - sum over pruned q of F^-1 E_q ([F^-1]_qq)^-1 w_q

Shape suffixes: K Fisher blocks, B weights in a block, G units of S weights that go together (S is 1 for most).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ovit_deploy.pruning.allocation import Curve, Rule
from ovit_deploy.pruning.damping import Damping
from ovit_deploy.pruning.fisher import cholesky, invert
from ovit_deploy.pruning.greedy import staying_last
from ovit_deploy.pruning.layerwise import smallest_of_rows
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.patterns import Pattern, parse_pattern
from ovit_deploy.pruning.scheme import FisherScheme
from ovit_deploy.pruning.second_order import check_settings, problem_of, prune_in_pieces, required
from ovit_deploy.pruning.spread import FREE, Spread
from ovit_deploy.pruning.streaming import Problem


@dataclass(frozen=True)
class WoodFisher:
    """The smallest OBS saliencies of all targets together, judged once.

    Args:
        block_size: B; each tensor takes the smallest divisor of its size that is at least this.
        num_grads: m, the calibration samples whose gradients make the Fisher matrices.
        damping: Added to the diagonal of the Fisher matrices.
        memory_budget: Bytes for Fisher matrices and work on them; None takes half of the free memory.
        pattern: ``unstructured``, ``N:M``, ``block4`` or ``RxC``: patterns.py. Blocks then hold whole groups.
        allocation: How removals are spread over blocks: a rule of allocation.py.
        spread: Bounds and prices of layers, and settings of OWL.
        damping_kind: What ``damping`` is a multiple of: absolute, relative or robust (damping.py).
        spill: Folder for Fisher matrices that do not fit in the memory budget together; None takes each twice.
    """

    block_size: int = 192
    num_grads: int = 4096
    damping: float = 1e-6
    memory_budget: int | None = None
    pattern: str = "unstructured"
    allocation: Rule = "marginal"
    spread: Spread = FREE
    damping_kind: Damping = "absolute"
    spill: Path | None = None

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
        return prune_in_pieces(self.problem(model, masks, calibration, report), sparsity, rule=self.allocation)

    def problem(
        self, model: nn.Module, masks: Masks, calibration: Calibration, report: Report | None = None
    ) -> Problem:
        """The model as it is now, to be taken through elimination."""
        scheme = JudgedOnce(parse_pattern(self.pattern).on(masks), damping_kind=self.damping_kind)
        return problem_of(self, scheme, model, masks, calibration, report, self.spill)


@dataclass(frozen=True)
class JudgedOnce(FisherScheme):
    """Saliencies from the whole inverse, and the sum of single-weight updates."""

    def order(self, w_KB: Tensor, fisher_KBB: Tensor, active_KB: Tensor) -> tuple[Curve, Tensor]:
        """See :class:`~ovit_deploy.pruning.scheme.Scheme`."""
        finv_KBB, jitter_K = invert(fisher_KBB, active_KB)
        return by_saliency(w_KB, own_blocks(finv_KBB, self.pattern.unit), active_KB, self.pattern), jitter_K

    def update(self, w_KB: Tensor, fisher_KBB: Tensor, active_KB: Tensor, kept_KB: Tensor) -> Tensor:
        """See :class:`~ovit_deploy.pruning.scheme.Scheme`."""
        finv_KBB, _ = invert(fisher_KBB, active_KB)
        pull_KB = pull(w_KB, own_blocks(finv_KBB, self.pattern.unit), kept_KB)
        return (w_KB - (finv_KBB @ pull_KB[:, :, None]).squeeze(2)).masked_fill(~kept_KB, 0)


def own_blocks(finv_KBB: Tensor, size: int) -> Tensor:
    """``[F^-1]_qq`` of every unit [K, G, S, S]; for single weights the diagonal."""
    units_KGSGS = finv_KBB.unflatten(2, (-1, size)).unflatten(1, (-1, size))
    return units_KGSGS.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)


def by_saliency(w_KB: Tensor, own_KGSS: Tensor, active_KB: Tensor, pattern: Pattern) -> Curve:
    """The curve that removes units by ``1/2 w_q^T ([F^-1]_qq)^-1 w_q``, of equals the first first."""
    w_KGS, active_KG = w_KB.double().unflatten(1, (-1, pattern.unit)), active_KB[:, :: pattern.unit]
    saliency_KG = (w_KGS * solved(own_KGSS, w_KGS)).sum(dim=2) / 2
    stays_KG = must_stay(saliency_KG.masked_fill(~active_KG, -1), pattern)
    order_KG = saliency_KG.masked_fill(~active_KG, torch.inf).masked_fill(stays_KG, torch.finfo(torch.float64).max)
    rank_KG = order_KG.argsort(dim=1, stable=True).argsort(dim=1).int() + 1
    curve = Curve(rank_KG.masked_fill(~active_KG, 0), saliency_KG.masked_fill(~active_KG, 0))
    return staying_last(curve, stays_KG)


def must_stay(saliency_KB: Tensor, pattern: Pattern) -> Tensor:
    """The weights with the largest saliencies of each N:M group; none under other patterns."""
    if not pattern.limited:
        return torch.zeros_like(saliency_KB, dtype=torch.bool)
    goes_KGM = smallest_of_rows(saliency_KB.unflatten(1, (-1, pattern.group)), pattern.limit)
    return ~goes_KGM.flatten(1)


def pull(w_KB: Tensor, own_KGSS: Tensor, kept_KB: Tensor) -> Tensor:
    """``([F^-1]_qq)^-1 w_q`` at the pruned units, 0 elsewhere: times F^-1 it is the sum of their updates."""
    w_KGS = w_KB.double().unflatten(1, (-1, own_KGSS.shape[-1]))
    return solved(own_KGSS, w_KGS).flatten(1).masked_fill(kept_KB, 0)


def solved(own_KGSS: Tensor, w_KGS: Tensor) -> Tensor:
    """``([F^-1]_qq)^-1 w_q`` of every unit."""
    if w_KGS.shape[2] == 1:
        return w_KGS / own_KGSS[..., 0]
    factor_KGSS, _ = cholesky(own_KGSS.flatten(0, 1))
    return torch.cholesky_solve(w_KGS.flatten(0, 1)[..., None], factor_KGSS)[..., 0].unflatten(0, w_KGS.shape[:2])
