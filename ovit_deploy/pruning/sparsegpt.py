"""SparseGPT: each layer keeps its outputs, one sweep over its columns.

"SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", Frantar & Alistarh, arXiv 2301.00774. The
input Hessian of a layer (hessian.py) with 1 % of its mean diagonal added, a sweep over the columns in which weights to
the right compensate, and a mask that is chosen anew for each 128 columns from the weights as they are by then
(column_sweep.py). Every layer, and in it every 128 columns, goes to the same sparsity.

What it minimises is a layer's output error, not the loss of the task: it is in the details of the answer, as
``output_error``, and there is no predicted loss.
"""

from dataclasses import dataclass
from functools import partial

from torch import nn

from ovit_deploy.pruning.column_sweep import COPIES, prune_columns
from ovit_deploy.pruning.hessian import images_for
from ovit_deploy.pruning.layerwise import check_settings, layer_zeros, reconstruct
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.spread import FREE, LayerRule, Spread


@dataclass(frozen=True)
class SparseGPT:
    """Prune at the least output error of each layer, every layer to the same sparsity.

    Args:
        num_samples: Calibration images whose inputs are measured; each gives as many inputs as it has tokens.
        damping: Added to the diagonal of an input Hessian, in multiples of its mean diagonal.
        columns: Columns for which weights are chosen together.
        pattern: ``unstructured``, ``N:M``, ``block4`` or ``RxC``: patterns.py.
        memory_budget: Bytes for input Hessians and work on them; None takes half of the free memory.
        allocation: How zeros are shared out to layers: ``uniform``, ``erk`` or ``owl``.
        spread: Bounds of layers, and settings of OWL.
    """

    num_samples: int = 1024
    damping: float = 0.01
    columns: int = 128
    pattern: str = "unstructured"
    memory_budget: int | None = None
    allocation: LayerRule = "uniform"
    spread: Spread = FREE

    def __post_init__(self) -> None:
        check_settings(self, num_samples=self.num_samples, columns=self.columns, damping=self.damping)

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
            images_for("SparseGPT", calibration, self.num_samples),
            partial(prune_columns, columns=self.columns, pattern=pattern),
            damping=self.damping,
            memory_budget=self.memory_budget,
            copies=COPIES,
            report=report or (lambda text: None),
        )
