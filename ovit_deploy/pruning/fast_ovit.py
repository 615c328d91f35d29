"""FastOViT: one small Fisher matrix per layer, one sweep over it.

The fast variant of oViT (the paper's second version, "CAP: Correlation-Aware Pruning for Highly-Accurate Sparse Vision
Models", Kuznedelev et al., arXiv 2210.09223, calls it FastCAP): all K Fisher blocks of a layer share their average,

    F = 1/(m K) sum_i sum_b g_ib g_ib^T + damping mean(diag) I

so a layer costs B^2 numbers of memory and O(d B) time for d weights. Blocks that share a matrix are rows of one sweep,
as in SparseGPT (column_sweep.py), with a mask chosen anew for each few columns from the weights as they are by then.
Every layer goes to the same sparsity.

Gradients at pruned weights are not masked here: blocks whose zeros lie at different places share F, which describes
the loss around all of them; the sweep holds the zeros of each.

The predicted loss is ``1/2 sum_b d_b^T F d_b`` over all layers, that of the task under the shared F.

Shape suffixes: N samples, K Fisher blocks, B weights in a block.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ovit_deploy.pruning.column_sweep import Swept, prune_columns
from ovit_deploy.pruning.fisher import Span, block_size_for, gradient_pieces
from ovit_deploy.pruning.gradients import SampleGradients
from ovit_deploy.pruning.hessian import damped
from ovit_deploy.pruning.layerwise import check_settings, layer_zeros, to_masks
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.patterns import Pattern
from ovit_deploy.pruning.samples import batch_gradients, mean_over_images, share
from ovit_deploy.pruning.second_order import check_gradients, required
from ovit_deploy.pruning.spread import FREE, LayerRule, Spread
from ovit_deploy.pruning.tiles import from_tiles

# Per-sample gradients are formed in pieces of about this size.
WORK_BYTES = 2**26


@dataclass(frozen=True)
class FastOViT:
    """Prune with one Fisher matrix per layer, every layer to the same sparsity.

    Args:
        block_size: B; each tensor takes the smallest divisor of its size that is at least this and holds whole groups
            of the pattern.
        num_grads: m, the calibration samples whose gradients make the Fisher matrices.
        damping: Added to the diagonal of a Fisher matrix.
        damping_kind: Whether ``damping`` is a multiple of the mean diagonal, or of 1.
        columns: Columns of the blocks for which weights are chosen together.
        pattern: ``unstructured``, ``N:M``, ``block4`` or ``RxC``: patterns.py.
        allocation: How zeros are shared out to layers: ``uniform``, ``erk`` or ``owl``.
        spread: Bounds of layers, and settings of OWL.
    """

    block_size: int = 192
    num_grads: int = 256
    damping: float = 0.01
    columns: int = 64
    pattern: str = "unstructured"
    allocation: LayerRule = "uniform"
    spread: Spread = FREE
    damping_kind: Literal["relative", "absolute"] = "relative"

    def __post_init__(self) -> None:
        counts = {"block_size": self.block_size, "num_grads": self.num_grads, "columns": self.columns}
        check_settings(self, damping=self.damping, **counts)

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
        report = report or (lambda text: None)
        calibration = required(calibration, "FastOViT", self.num_grads)
        weights, pattern, zeros = layer_zeros(self, model, masks, sparsity, calibration)
        blocks = {name: block_size_for(mask.numel(), self.block_size, pattern.group) for name, mask in masks.items()}
        start = time.perf_counter()
        by_name = {
            name: Span(name, 0, masks[name].numel() // block, block, pattern.tile) for name, block in blocks.items()
        }
        report(f"shared Fisher matrices: {self.num_grads} gradients of {len(by_name)} weights")
        check_gradients(model, masks, calibration, self.num_grads)
        fishers, mean_loss = shared_fishers(model, list(by_name.values()), calibration, self.num_grads)
        report(f"sweeping {len(by_name)} weights")
        swept = {
            name: self.sweep(span, weights[name], masks[name], fishers[name], zeros[name], pattern)
            for name, span in by_name.items()
        }
        for name, span in by_name.items():
            span.put(weights[name], swept[name].weights_GOI[0].to(weights[name]))
        details = {
            "num_gradients": self.num_grads,
            "calibration_loss": mean_loss,
            "jitter": {name: found.jitter for name, found in swept.items() if found.jitter},
            "fisher_bytes": sum(8 * block**2 for block in blocks.values()),
            "seconds": time.perf_counter() - start,
        }
        kept = {
            name: from_tiles(found.kept_GOI.flatten(), masks[name].shape, pattern.tile) for name, found in swept.items()
        }
        return Pruned(to_masks(kept, masks), weights, sum(found.loss for found in swept.values()), details)

    def damp(self, fisher_KBB: Tensor) -> Tensor:
        """With damping on the diagonals."""
        if self.damping_kind == "relative":
            return damped(fisher_KBB, self.damping)
        return fisher_KBB + self.damping * torch.eye(fisher_KBB.shape[-1]).to(fisher_KBB)

    def sweep(
        self, span: Span, weight: Tensor, mask: Tensor, fisher_BB: Tensor, num_zeros: int, pattern: Pattern
    ) -> Swept:
        """One layer, its blocks as rows: a group is then a run of columns."""
        w_KB, kept_KB = span.cut(weight), span.cut(mask.to(weight.device))
        return prune_columns(
            w_KB[None],
            kept_KB[None],
            self.damp(fisher_BB[None]),
            num_zeros,
            columns=self.columns,
            pattern=replace(pattern, rows=1, columns=pattern.group),
        )


def shared_fishers(
    model: nn.Module, spans: Sequence[Span], calibration: Calibration, num_grads: int
) -> tuple[dict[str, Tensor], float]:
    """The average Fisher block [B, B] of each weight, undamped and in float64, and the mean loss of the samples."""
    by_name = {span.name: span for span in spans}
    device = next(model.parameters()).device
    sums = {
        span.name: torch.zeros(span.block_size, span.block_size, dtype=torch.float64, device=device) for span in spans
    }

    def consume(name: str, gradients: SampleGradients) -> None:
        for _, gradient_KNB in gradient_pieces(by_name[name], gradients, WORK_BYTES):
            flat = gradient_KNB.flatten(0, 1)
            sums[name].add_(flat.T @ flat)

    total_loss = torch.zeros((), dtype=torch.float64)
    for first, images, labels in share(calibration, num_grads, sums | {"loss": total_loss}):
        total_loss += batch_gradients(model, by_name, images, labels, calibration, first, consume)
    for total in sums.values():
        calibration.ranks.reduce(total)
    fishers = {name: total.div_(num_grads * len(by_name[name])) for name, total in sums.items()}
    return fishers, mean_over_images(calibration, total_loss, num_grads)
