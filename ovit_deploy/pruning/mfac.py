"""M-FAC: saliencies from a few gradients and no matrix of the weights.

"M-FAC: Efficient Matrix-Free Approximations of Second-Order Information", Frantar, Kurtic & Alistarh, arXiv 2107.03356
(the static algorithm). Of a block only its m gradients G are held, m B numbers, which allows blocks far larger than m.
The paper's recursion over the gradients and the Woodbury identity are the same inverse; here it is the identity, with a
Cholesky factor of m by m numbers::

    F    = damping I + 1/m G^T G
    F^-1 = 1/damping (I - T^T T)      with  L L^T = m damping I + G G^T,  T = L^-1 G

Saliency, allocation and update are those of WoodFisher (woodfisher.py), as are patterns.

Shape suffixes: K blocks, B weights in a block, M gradients, G units of S weights that go together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.allocation import Curve, Rule
from ovit_deploy.pruning.fisher import Fishers, Span, cholesky, each_gradient, empty_blocks
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.patterns import UNSTRUCTURED, Pattern, parse_pattern
from ovit_deploy.pruning.second_order import check_settings, problem_of, prune_in_pieces, required
from ovit_deploy.pruning.spread import FREE, Spread
from ovit_deploy.pruning.streaming import Problem
from ovit_deploy.pruning.woodfisher import by_saliency, pull

# Where 1 - sum_i T_ip^2 falls below so many machine epsilons it is rounding noise.
CANCELLED = 16


@dataclass(frozen=True)
class MFAC:
    """The smallest OBS saliencies of all targets together, judged once, with large blocks.

    Args:
        block_size: B; each tensor takes the smallest divisor of its size that is at least this.
        num_grads: m, the calibration samples whose gradients are held.
        damping: Of the Fisher matrices that the gradients stand for; not 0.
        memory_budget: Bytes for gradients and work on them; None takes half of the free memory.
        pattern: ``unstructured``, ``N:M``, ``block4`` or ``RxC``: patterns.py. Blocks then hold whole groups.
        allocation: How removals are spread over blocks: a rule of allocation.py.
        spread: Bounds and prices of layers, and settings of OWL.
    """

    block_size: int = 2048
    num_grads: int = 1024
    damping: float = 1e-6
    memory_budget: int | None = None
    pattern: str = "unstructured"
    allocation: Rule = "marginal"
    spread: Spread = FREE

    def __post_init__(self) -> None:
        check_settings(self)
        if self.damping == 0:
            raise PruningError("damping is 0: M-FAC divides by it", "give a small number, such as 1e-6")

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
        calibration = required(calibration, "M-FAC", self.num_grads)
        return prune_in_pieces(self.problem(model, masks, calibration, report), sparsity, rule=self.allocation)

    def problem(
        self, model: nn.Module, masks: Masks, calibration: Calibration, report: Report | None = None
    ) -> Problem:
        """The model as it is now, to be taken through elimination."""
        scheme = GradientVectors(self.damping, parse_pattern(self.pattern).on(masks))
        return problem_of(self, scheme, model, masks, calibration, report)


@dataclass(frozen=True)
class GradientVectors:
    """A :class:`~ovit_deploy.pruning.scheme.Scheme` that holds the gradients of each block."""

    damping: float
    pattern: Pattern = UNSTRUCTURED

    def num_held(self, block_size: int, num_grads: int) -> int:
        """One row a gradient."""
        return num_grads * block_size

    def work_bytes(self, block_size: int, num_grads: int) -> int:
        """G, T and a product of them; G G^T, its factor and a copy."""
        return 8 * (4 * num_grads * block_size + 3 * num_grads**2)

    def collect(
        self,
        model: nn.Module,
        spans: Sequence[Span],
        masks: Masks,
        calibration: Calibration,
        *,
        num_grads: int,
        damping: float,
        work_bytes: int,
    ) -> Fishers:
        """The gradients of every block [K, M, B]; damping is added where they are used."""
        held = {span: empty_blocks(model, span, num_grads, span.block_size) for span in spans}

        def keep(span: Span, part: slice, first: int, gradient_KNB: Tensor) -> None:
            held[span][part, first : first + gradient_KNB.shape[1]] = gradient_KNB

        mean_loss = each_gradient(
            model,
            spans,
            masks,
            calibration,
            num_grads=num_grads,
            work_bytes=work_bytes,
            consume=keep,
            sums=[*held.values()],
        )
        for gradient_KMB in held.values():
            calibration.ranks.reduce(gradient_KMB)
        return Fishers(held, mean_loss)

    def whole(self, held_KMB: Tensor, block_size: int) -> Tensor:
        """See :class:`~ovit_deploy.pruning.scheme.Scheme`; gradients are used as they are held."""
        return held_KMB

    def order(self, w_KB: Tensor, held_KMB: Tensor, active_KB: Tensor) -> tuple[Curve, Tensor]:
        """See :class:`~ovit_deploy.pruning.scheme.Scheme`."""
        factor_KMB, jitter_K = inverse_factor(held_KMB, self.damping)
        own_KGSS = own_blocks(factor_KMB, self.pattern.unit, self.damping)
        return by_saliency(w_KB, own_KGSS, active_KB, self.pattern), jitter_K

    def settle(self, w_KB: Tensor, held_KMB: Tensor, active_KB: Tensor, kept_KB: Tensor) -> Tensor:
        """See :class:`~ovit_deploy.pruning.scheme.Scheme`; the order decides."""
        return kept_KB

    def update(self, w_KB: Tensor, held_KMB: Tensor, active_KB: Tensor, kept_KB: Tensor) -> Tensor:
        """See :class:`~ovit_deploy.pruning.scheme.Scheme`."""
        factor_KMB, _ = inverse_factor(held_KMB, self.damping)
        pull_KB = pull(w_KB, own_blocks(factor_KMB, self.pattern.unit, self.damping), kept_KB)
        return (w_KB - inverse_times(factor_KMB, pull_KB, self.damping)).masked_fill(~kept_KB, 0)

    def loss(self, change_KB: Tensor, held_KMB: Tensor) -> float:
        """``sum_b 1/2 damping |d_b|^2 + 1/(2m) |G_b d_b|^2``."""
        along_KM = (held_KMB.double() @ change_KB[:, :, None]).squeeze(2)
        return float(self.damping * change_KB.square().sum() + along_KM.square().sum() / held_KMB.shape[1]) / 2


def inverse_factor(gradient_KMB: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """T of ``F^-1 = 1/damping (I - T^T T)`` in float64, and the jitter of its Cholesky factor [K]."""
    gradient_KMB = gradient_KMB.double()
    gram_KMM = gradient_KMB @ gradient_KMB.mT
    gram_KMM.diagonal(dim1=1, dim2=2).add_(damping * gradient_KMB.shape[1])
    lower_KMM, jitter_K = cholesky(gram_KMM)
    return torch.linalg.solve_triangular(lower_KMM, gradient_KMB, upper=False), jitter_K


def own_blocks(factor_KMB: Tensor, size: int, damping: float) -> Tensor:
    """``[F^-1]_qq`` of every unit of ``size`` weights [K, G, S, S]; for single weights the diagonal."""
    factor_KGMS = factor_KMB.unflatten(2, (-1, size)).transpose(1, 2)
    own_KGSS = -(factor_KGMS.mT @ factor_KGMS)
    diagonal_KGS = own_KGSS.diagonal(dim1=2, dim2=3)
    diagonal_KGS.copy_((1 + diagonal_KGS).clamp(min=CANCELLED * torch.finfo(factor_KMB.dtype).eps))
    return own_KGSS / damping


def inverse_times(factor_KMB: Tensor, vector_KB: Tensor, damping: float) -> Tensor:
    """``F^-1 v`` [K, B]."""
    along_KM1 = factor_KMB @ vector_KB[:, :, None]
    return (vector_KB - (factor_KMB.mT @ along_KM1).squeeze(2)) / damping
