"""oViT as a modifier of SparseML 1.8.0: import this module, and SparseML's recipes may say ``!OViTPruningModifier``.

    import ovit_deploy.integrations.sparseml          # registers the tag
    manager = ScheduledModifierManager.from_yaml("recipe.yaml")        # SparseML's own
    optimizer = manager.modify(model, optimizer, len(loader), grad_sampler={...})

SparseML wants pydantic < 2.8 and numpy < 2, this package newer ones; so nothing but `ovit_deploy.pruning` is imported,
which needs torch, numpy (1.26 is enough), numba and psutil. Install with ``pip install --no-deps ovit-deploy`` and
``pip install numba`` into SparseML's environment.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from sparseml.pytorch.sparsification import ModifierProp, PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning import BaseGradualPruningModifier, PruningMaskCreator
from sparseml.pytorch.sparsification.pruning.mask_creator import get_mask_creator_default
from torch import nn

from ovit_deploy.pruning import OViT, apply
from ovit_deploy.pruning.grad_sampler import calibration_from, check_grad_sampler


@PyTorchModifierYAML()
class OViTPruningModifier(BaseGradualPruningModifier):
    """Gradual pruning with oViT (arXiv 2210.09223): block Fisher, greedy joint elimination, exact global budget.

    The keys are those of this package's own ``!OViTPruningModifier``; dates and sparsities are SparseML's.

    Args:
        params: Names, ``re:`` patterns or ``__ALL_PRUNABLE__``; weights of linear and convolutional layers.
        init_sparsity: Of all targets together, at ``start_epoch``.
        final_sparsity: Of all targets together, at ``end_epoch``.
        start_epoch: When the first pruning happens.
        end_epoch: When the last one happens.
        update_frequency: Epochs between two.
        leave_enabled: Hold the zeros until ``finalize``.
        inter_func: How sparsity grows: linear, cubic or inverse_cubic.
        mask_type: unstructured, N:M (N kept) or block4.
        num_grads: Samples (not batches) of the grad_sampler whose gradients make the Fisher matrices.
        damp: Added to their diagonal.
        fisher_block_size: Weights in a block.
        num_recomputations: Pieces in which a jump in sparsity is made.
        allocation: How removals are spread over blocks: hull, marginal, cumulative or uniform.
        refine: Swap pruned for kept weights afterwards, while that lowers the predicted loss.
        grad_sampler_kwargs: For the grad_sampler's ``data_loader_builder``.
    """

    def __init__(
        self,
        params: str | list[str],
        init_sparsity: float,
        final_sparsity: float,
        start_epoch: float,
        end_epoch: float,
        update_frequency: float,
        leave_enabled: bool = True,
        inter_func: str = "cubic",
        mask_type: str = "unstructured",
        num_grads: int = 4096,
        damp: float | str = 1e-8,
        fisher_block_size: int = 192,
        num_recomputations: int = 1,
        allocation: str = "hull",
        refine: bool = False,
        grad_sampler_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(init_sparsity, float | int) or not isinstance(final_sparsity, float | int):
            raise ValueError("init_sparsity and final_sparsity must be numbers: oViT has one budget for all targets")
        super().__init__(
            params=params,
            init_sparsity=float(init_sparsity),
            final_sparsity=float(final_sparsity),
            start_epoch=start_epoch,
            end_epoch=end_epoch,
            update_frequency=update_frequency,
            inter_func=inter_func,
            leave_enabled=leave_enabled,
            global_sparsity=True,
            end_comparator=-1,
            parent_class_kwarg_names=[],
        )
        self._mask_type = mask_type
        self._grad_sampler_kwargs = grad_sampler_kwargs
        self._method = OViT(
            block_size=fisher_block_size,
            num_grads=num_grads,
            damping=float(damp),  # YAML 1.1 reads 1e-8 as a text
            allocation=allocation,  # pyrefly: ignore[bad-argument-type] - OViT checks it
            num_recomputations=num_recomputations,
            pattern={"tensorrt": "2:4"}.get(mask_type, mask_type),
            refine=refine,
        )
        self._sampler: Mapping[str, Callable[..., Any]] = {}

    @ModifierProp()
    def mask_type(self) -> str:
        """The pattern of zeros."""
        return self._mask_type

    @ModifierProp()
    def num_grads(self) -> int:
        """Calibration samples."""
        return self._method.num_grads

    @ModifierProp()
    def damp(self) -> float:
        """Added to the diagonal of the Fisher matrices."""
        return self._method.damping

    @ModifierProp()
    def fisher_block_size(self) -> int:
        """Weights in a block."""
        return self._method.block_size

    @ModifierProp()
    def num_recomputations(self) -> int:
        """Pieces of a jump in sparsity."""
        return self._method.num_recomputations

    @ModifierProp()
    def allocation(self) -> str:
        """How removals are spread over blocks."""
        return self._method.allocation

    @ModifierProp()
    def refine(self) -> bool:
        """Whether weights are swapped afterwards."""
        return self._method.refine

    @ModifierProp()
    def grad_sampler_kwargs(self) -> dict[str, Any] | None:
        """For the grad_sampler."""
        return self._grad_sampler_kwargs

    @ModifierProp(serializable=False)
    def global_sparsity(self) -> bool:
        """One budget for all targets, always."""
        return True

    def initialize(self, module: nn.Module, epoch: float = 0, loggers: Any = None, **kwargs: Any) -> None:
        """Take the grad_sampler out of ``kwargs``; without one, an error now rather than at the first pruning."""
        self._sampler = check_grad_sampler(kwargs.get("grad_sampler"))
        super().initialize(module, epoch, loggers, **kwargs)

    def check_mask_update(self, module: nn.Module, epoch: float, steps_per_epoch: int, **kwargs: Any) -> None:
        """Prune to this epoch's sparsity, if pruning has begun; the weights change with the masks."""
        starts = self.start_pending(epoch, steps_per_epoch)
        if starts:
            self._module_masks.enabled = True
        if starts or self.started:
            self._applied_sparsity = self.get_applied_sparsity_for_epoch(epoch, steps_per_epoch)
            self._prune(module, self._applied_sparsity[0])
            self._sparsity_applied = True
        if self.end_pending(epoch, steps_per_epoch):
            self._module_masks.pruning_end(self._leave_enabled)

    def _prune(self, module: nn.Module, sparsity: float) -> None:
        held = self._module_masks
        names = [f"{layer}.{param}" for layer, param in zip(held.layer_names, held.param_names, strict=True)]
        masks = {name: mask.bool() for name, mask in zip(names, held.param_masks, strict=True)}
        samples = calibration_from(self._sampler, module, self._method.num_grads, self._grad_sampler_kwargs)
        held.enabled = False  # its hooks would mask the gradients of the calibration samples
        pruned = self._method.prune(module, masks, sparsity=sparsity, calibration=samples)
        apply(module, pruned)
        held.enabled = True
        held.set_param_masks([pruned.masks[name].to(module.get_parameter(name).dtype) for name in names])

    def is_oneshot(self, epoch: float, steps_per_epoch: int) -> bool:
        """Whether there is no training: everything happens in ``initialize``."""
        return steps_per_epoch == 1 and math.isinf(epoch)

    def _get_mask_creator(self, param_names: list[str], params: list[nn.Parameter]) -> PruningMaskCreator:
        return get_mask_creator_default(self._mask_type)  # SparseML shows it; oViT makes the masks

    def _get_scorer(self, params: list[nn.Parameter]) -> None:
        return None
