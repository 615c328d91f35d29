"""SparseGPT: each layer keeps its outputs, one sweep over its columns.

"SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", Frantar & Alistarh, arXiv 2301.00774. The
input Hessian of a layer (hessian.py) with 1 % of its mean diagonal added, a sweep over the columns in which weights to
the right compensate, and a mask that is chosen anew for each 128 columns from the weights as they are by then
(column_sweep.py). Every layer, and in it every 128 columns, goes to the same sparsity.

What it minimises is a layer's output error, not the loss of the task: it is in the details of the answer, as
``output_error``, and there is no predicted loss.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from ovit_deploy.pruning.column_sweep import Swept, prune_columns
from ovit_deploy.pruning.hessian import damped, images_for, input_hessians, output_error
from ovit_deploy.pruning.layerwise import Pattern, as_matrix, check_settings, layer_zeros, to_masks
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report, target_weights


@dataclass(frozen=True)
class SparseGPT:
    """Prune at the least output error of each layer, every layer to the same sparsity.

    Args:
        num_samples: Calibration images whose inputs are measured; each gives as many inputs as it has tokens.
        damping: Added to the diagonal of an input Hessian, in multiples of its mean diagonal.
        columns: Columns for which weights are chosen together.
        pattern: (N, M) keeps N of each M inputs that follow one another; None prunes without a pattern.
        memory_budget: Bytes for input Hessians and work on them; None takes half of the free memory.
    """

    num_samples: int = 1024
    damping: float = 0.01
    columns: int = 128
    pattern: Pattern | None = None
    memory_budget: int | None = None

    def __post_init__(self) -> None:
        check_settings(num_samples=self.num_samples, columns=self.columns, damping=self.damping, pattern=self.pattern)

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
        report = report or (lambda text: None)
        weights = target_weights(model, masks)
        zeros = layer_zeros(masks, sparsity, self.pattern)
        images = images_for("SparseGPT", calibration, self.num_samples)
        kept: dict[str, Tensor] = {}
        record: dict[str, dict[str, float]] = {"output_error": {}, "jitter": {}}
        hessians = input_hessians(model, list(masks), images, memory_budget=self.memory_budget, report=report)
        for name, hessian_GII in hessians:
            report(f"sweeping {name}")
            w_GOI = as_matrix(weights[name], hessian_GII)
            swept = self.sweep(w_GOI, masks[name], hessian_GII, zeros[name])
            kept[name] = swept.kept_GOI
            record["output_error"][name] = output_error(swept.weights_GOI - w_GOI, w_GOI, hessian_GII)
            if swept.jitter:
                record["jitter"][name] = swept.jitter
            w_GOI.copy_(swept.weights_GOI)
        return Pruned(to_masks(kept, masks), weights, None, {"num_samples": self.num_samples} | record)

    def sweep(self, w_GOI: Tensor, mask: Tensor, hessian_GII: Tensor, num_zeros: int) -> Swept:
        """One layer."""
        kept_GOI = as_matrix(mask.to(w_GOI.device), hessian_GII)
        hessian_GII = damped(hessian_GII, self.damping)
        return prune_columns(w_GOI, kept_GOI, hessian_GII, num_zeros, columns=self.columns, pattern=self.pattern)
