"""ExactOBS, the pruner of OBC: each layer keeps its outputs, one weight at a time in every row.

"Optimal Brain Compression: A Framework for Accurate Post-Training Quantization and Pruning", Frantar, Singh & Alistarh,
arXiv 2208.11580, sections 4 and 5. The output error of a layer is a sum over its rows, each a quadratic form of its own
weights with the input Hessian that all rows share (hessian.py). So a row is eliminated as an oViT block is
(kernels/eliminate); the rows of a layer then give up the steps with the smallest losses of all (Algorithm 2: the
``marginal`` rule of allocation.py), and what is kept takes its best values in closed form. Every layer goes to the
same sparsity.

Exact, and dear: about I^3 / 2 multiply-adds for each row of I weights, against I^2 of SparseGPT.

What it minimises is a layer's output error, not the loss of the task: it is in the details of the answer, as
``output_error``, and there is no predicted loss.

Shape suffixes: G groups of a convolution, O outputs of a group, I inputs, R = G O rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.allocation import Curve, allocate
from ovit_deploy.pruning.fisher import compensate, invert
from ovit_deploy.pruning.greedy import greedy_curve
from ovit_deploy.pruning.hessian import images_for
from ovit_deploy.pruning.layerwise import PrunedLayer, check_settings, layer_zeros, reconstruct
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.patterns import Pattern, parse_pattern
from ovit_deploy.pruning.spread import FREE, LayerRule, Spread

# Copies of a row's H that elimination and compensation take, and those that a layer takes beside.
COPIES_A_ROW = 6
COPIES_A_LAYER = 2
# Rows are done in pieces of about this size: more are no faster.
PIECE_BYTES = 2**25


@dataclass(frozen=True)
class OBC:
    """Prune at the least output error of each layer with exact greedy elimination, every layer to the same sparsity.

    Args:
        num_samples: Calibration images whose inputs are measured; each gives as many inputs as it has tokens.
        damping: Added to the diagonal of an input Hessian, in multiples of its mean diagonal.
        memory_budget: Bytes for input Hessians and for one row at work; None takes half of the free memory.
        pattern: ``unstructured``, ``N:M`` or ``block4``: patterns.py. Rows are pruned by themselves, so not ``RxC``
            with more than one row.
        allocation: How zeros are shared out to layers: ``uniform``, ``erk`` or ``owl``.
        spread: Bounds of layers, and settings of OWL.
    """

    num_samples: int = 1024
    damping: float = 0.01
    memory_budget: int | None = None
    pattern: str = "unstructured"
    allocation: LayerRule = "uniform"
    spread: Spread = FREE

    def __post_init__(self) -> None:
        check_settings(self, num_samples=self.num_samples, damping=self.damping)
        if parse_pattern(self.pattern).rows != 1:
            raise PruningError(
                f"OBC prunes every row by itself: the blocks of {self.pattern} have several",
                "choose a pattern of one row, or SparseGPT",
            )

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
        return reconstruct(
            model,
            weights,
            masks,
            zeros,
            images_for("OBC", calibration, self.num_samples),
            partial(prune_rows, pattern=pattern),
            damping=self.damping,
            memory_budget=self.memory_budget,
            copies=COPIES_A_ROW + COPIES_A_LAYER,
            report=report or (lambda text: None),
        )


def prune_rows(
    w_GOI: Tensor, kept_GOI: Tensor, hessian_GII: Tensor, num_zeros: int, *, pattern: Pattern
) -> PrunedLayer:
    """Prune a layer to ``num_zeros`` zeros, those that are there already included."""
    w_RI = w_GOI.flatten(0, 1)
    curve, jitter = eliminate_rows(w_RI, kept_GOI.flatten(0, 1), hessian_GII, pattern)
    counts_R = allocate({"layer": curve}, num_zeros // pattern.unit, rule="marginal")["layer"]
    kept_RI = (curve.rank_KB > counts_R[:, None]).repeat_interleave(pattern.unit, dim=1).to(w_RI.device)
    u_RI = torch.empty_like(w_RI, dtype=torch.float64)
    for rows, hessian_II in row_pieces(len(w_RI), hessian_GII):
        part_RI = w_RI[rows]
        u_RI[rows] = compensate(part_RI, hessian_II.expand(len(part_RI), -1, -1), kept_RI[rows])
    return PrunedLayer(u_RI.view_as(w_GOI), kept_RI.view_as(w_GOI), jitter)


def eliminate_rows(w_RI: Tensor, active_RI: Tensor, hessian_GII: Tensor, pattern: Pattern) -> tuple[Curve, float]:
    """Eliminate in every row; returns the curves, on the CPU, and the largest jitter."""
    shape = (len(w_RI), w_RI.shape[1] // pattern.unit)
    curve = Curve(torch.zeros(shape, dtype=torch.int32), torch.zeros(shape, dtype=torch.float64))
    worst = 0.0
    shared: tuple[Tensor, Tensor, Tensor] | None = None
    for rows, hessian_II in row_pieces(len(w_RI), hessian_GII):
        part_RI = active_RI[rows]
        if not bool(part_RI.all()):
            finv_RII, jitter_R = invert(hessian_II.expand(len(part_RI), -1, -1), part_RI)
        else:
            if shared is None or shared[0] is not hessian_II:
                shared = (hessian_II, *invert(hessian_II[None], part_RI[:1]))
            finv_RII, jitter_R = shared[1].expand(len(part_RI), -1, -1), shared[2]
        found = greedy_curve(w_RI[rows], finv_RII, part_RI, pattern)
        curve.rank_KB[rows], curve.marginal_KB[rows] = found.rank_KB.cpu(), found.marginal_KB.cpu()
        worst = max(worst, float(jitter_R.max()))
    return curve, worst


def row_pieces(num_rows: int, hessian_GII: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows that are done together, and the Hessian that they share."""
    outputs = num_rows // len(hessian_GII)
    for group, hessian_II in enumerate(hessian_GII):
        step = max(1, PIECE_BYTES // (COPIES_A_ROW * hessian_II.numel() * hessian_II.element_size()))
        first, last = group * outputs, (group + 1) * outputs
        for start in range(first, last, step):
            yield slice(start, min(start + step, last)), hessian_II
