"""What a method makes of a few blocks of a weight: the part that differs between methods which look at curvature.

streaming.py brings every block past a scheme twice: once to be put in order, once to take its new values.

Shape suffixes: K blocks, B weights in a block, H numbers that are held of it, X rows of its curvature (B of a Fisher
matrix).
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Protocol

from torch import Tensor, nn

from ovit_deploy.kernels import triangle
from ovit_deploy.pruning.allocation import Curve
from ovit_deploy.pruning.average import FisherAverage
from ovit_deploy.pruning.damping import Damping
from ovit_deploy.pruning.fisher import Fishers, Span, fishers, predicted_loss
from ovit_deploy.pruning.method import Calibration, Masks
from ovit_deploy.pruning.patterns import UNSTRUCTURED, Pattern

COPIES = 6


class Scheme(Protocol):
    """Curvature, order and update of a method, on pieces of a few blocks."""

    @property
    def pattern(self) -> Pattern:
        """Which weights may be zero together."""
        ...

    def num_held(self, block_size: int, num_grads: int) -> int:
        """Numbers that are held of a block."""
        ...

    def work_bytes(self, block_size: int, num_grads: int) -> int:
        """Bytes of work on one block, in float64."""
        ...

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
        """What is held of the blocks of ``spans`` [K, ...], in one pass over the calibration samples."""
        ...

    def whole(self, held: Tensor, block_size: int, /) -> Tensor:
        """The curvature of a few blocks [K, X, B], from what is held of them."""
        ...

    def order(self, w_KB: Tensor, curvature_KXB: Tensor, active_KB: Tensor, /) -> tuple[Curve, Tensor]:
        """In which order weights (or whole groups of them) go, and the jitter that it took [K]."""
        ...

    def settle(self, w_KB: Tensor, curvature_KXB: Tensor, active_KB: Tensor, kept_KB: Tensor, /) -> Tensor:
        """What is kept in the end [K, B], as much in each block as in ``kept_KB``, which follows from the order."""
        ...

    def update(self, w_KB: Tensor, curvature_KXB: Tensor, active_KB: Tensor, kept_KB: Tensor, /) -> Tensor:
        """New values in float64 once all but ``kept_KB`` are removed."""
        ...

    def loss(self, change_KB: Tensor, curvature_KXB: Tensor, /) -> float:
        """``sum_b 1/2 d_b^T F_b d_b``."""
        ...


@dataclass(frozen=True)
class FisherScheme:
    """What schemes have in common that hold Fisher matrices, by half: X is B."""

    pattern: Pattern = UNSTRUCTURED
    _: KW_ONLY
    damping_kind: Damping = "absolute"
    average: FisherAverage | None = None

    def num_held(self, block_size: int, num_grads: int) -> int:
        """See :class:`Scheme`; an average is as large as what is held."""
        return triangle.num_held(block_size) * (1 if self.average is None else 2)

    def work_bytes(self, block_size: int, num_grads: int) -> int:
        """See :class:`Scheme`."""
        return 8 * COPIES * block_size**2

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
        """See :class:`Scheme`."""
        return fishers(
            model,
            spans,
            masks,
            calibration,
            num_grads=num_grads,
            damping=damping,
            work_bytes=work_bytes,
            damping_kind=self.damping_kind,
            average=self.average,
        )

    def whole(self, held_KH: Tensor, block_size: int) -> Tensor:
        """See :class:`Scheme`."""
        return triangle.whole(held_KH, block_size)

    def settle(self, w_KB: Tensor, fisher_KBB: Tensor, active_KB: Tensor, kept_KB: Tensor) -> Tensor:
        """See :class:`Scheme`; the order decides."""
        return kept_KB

    def loss(self, change_KB: Tensor, fisher_KBB: Tensor) -> float:
        """See :class:`Scheme`."""
        return predicted_loss(change_KB, fisher_KBB)
