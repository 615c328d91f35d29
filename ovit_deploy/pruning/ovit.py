"""oViT: correlation-aware pruning with block Fisher matrices.

"oViT: An Accurate Second-Order Pruning Framework for Vision Transformers", Kuznedelev et al., arXiv 2210.09223; its
second version is "CAP: Correlation-Aware Pruning for Highly-Accurate Sparse Vision Models", NeurIPS 2023. The steps,
in order::

    gradients   g_i of m calibration samples                                     gradients.py
    Fisher      F_b = damping I + 1/m sum_i g_ib g_ib^T for each block           fisher.py
    eliminate   greedy OBS in each block: the order and the loss of each weight  kernels/eliminate
    allocate    how many weights each block loses, to an exact total             allocation.py
    refine      optional swaps inside each block                                 refine.py
    compensate  the best values of what is kept, u_P = w_P + F_PP^-1 F_PS w_S    fisher.py
    round       optionally: what is kept to integers, one by one                 rounding.py

streaming.py strings them together within a memory budget.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.allocation import Curve, Rule
from ovit_deploy.pruning.average import FisherAverage
from ovit_deploy.pruning.damping import Damping
from ovit_deploy.pruning.fisher import compensate, invert
from ovit_deploy.pruning.greedy import greedy_curve
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.patterns import parse_pattern
from ovit_deploy.pruning.refine import refine
from ovit_deploy.pruning.rounding import check_rounding
from ovit_deploy.pruning.scheme import FisherScheme
from ovit_deploy.pruning.second_order import check_settings, problem_of, prune_in_pieces, required
from ovit_deploy.pruning.spread import FREE, Spread
from ovit_deploy.pruning.streaming import Problem


@dataclass(frozen=True)
class OViT:
    """Prune with second-order information, at the lowest predicted loss.

    Args:
        block_size: B; each tensor takes the smallest divisor of its size that is at least this.
        num_grads: m, the calibration samples whose gradients make the Fisher matrices.
        damping: Added to the diagonal of the Fisher matrices.
        allocation: How removals are spread over blocks: a rule of allocation.py.
        num_recomputations: Pieces in which the jump in sparsity is made, each with Fisher matrices of its own.
        memory_budget: Bytes for Fisher matrices and work on them; None takes half of the free memory.
        pattern: ``unstructured``, ``N:M``, ``block4`` or ``RxC``: patterns.py. Blocks then hold whole groups.
        refine: Swap pruned for kept weights inside each block while that lowers the predicted loss.
        spread: Bounds and prices of layers, and settings of OWL.
        damping_kind: What ``damping`` is a multiple of: absolute, relative or robust (damping.py).
        spill: Folder for Fisher matrices that do not fit in the memory budget together; None takes each twice.
        average: Moving average of Fisher matrices to take part in, where several prunings follow one another.
        weight_bits: Round the kept weights to integers of so many bits, 2 to 8, times a scale for each output channel.
    """

    block_size: int = 192
    num_grads: int = 4096
    damping: float = 1e-8
    allocation: Rule = "hull"
    num_recomputations: int = 1
    memory_budget: int | None = None
    pattern: str = "unstructured"
    refine: bool = False
    spread: Spread = FREE
    damping_kind: Damping = "absolute"
    spill: Path | None = None
    average: FisherAverage | None = None
    weight_bits: int | None = None

    def __post_init__(self) -> None:
        if parse_pattern(self.pattern).whole and self.refine:
            raise PruningError(
                f"refine swaps single weights, {self.pattern} keeps groups whole", "leave refine out, or use N:M"
            )
        check_settings(self)
        check_rounding(self.weight_bits, self.num_recomputations)

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
        calibration = required(calibration, "oViT", self.num_grads)
        problem = self.problem(model, masks, calibration, report)
        return prune_in_pieces(problem, sparsity, rule=self.allocation, num_pieces=self.num_recomputations)

    def problem(
        self, model: nn.Module, masks: Masks, calibration: Calibration, report: Report | None = None
    ) -> Problem:
        """The model as it is now, to be taken through elimination."""
        pattern = parse_pattern(self.pattern).on(masks)
        scheme = Greedy(pattern, self.refine, damping_kind=self.damping_kind, average=self.average)
        problem = problem_of(self, scheme, model, masks, calibration, report, self.spill)
        return replace(problem, weight_bits=self.weight_bits)


@dataclass(frozen=True)
class Greedy(FisherScheme):
    """Greedy elimination, after which the kept weights take their best values."""

    refine: bool = False

    def order(self, w_KB: Tensor, fisher_KBB: Tensor, active_KB: Tensor) -> tuple[Curve, Tensor]:
        """See :class:`~ovit_deploy.pruning.scheme.Scheme`."""
        finv_KBB, jitter_K = invert(fisher_KBB, active_KB)
        return greedy_curve(w_KB, finv_KBB, active_KB, self.pattern), jitter_K

    def settle(self, w_KB: Tensor, fisher_KBB: Tensor, active_KB: Tensor, kept_KB: Tensor) -> Tensor:
        """See :class:`~ovit_deploy.pruning.scheme.Scheme`."""
        return refine(w_KB, fisher_KBB, active_KB, kept_KB, self.pattern) if self.refine else kept_KB

    def update(self, w_KB: Tensor, fisher_KBB: Tensor, active_KB: Tensor, kept_KB: Tensor) -> Tensor:
        """See :class:`~ovit_deploy.pruning.scheme.Scheme`."""
        return compensate(w_KB, fisher_KBB, kept_KB)
