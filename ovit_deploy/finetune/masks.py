"""Masks: which weights are kept. Pruned weights stay exactly zero through every optimizer step."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Masks = dict[str, Tensor]


def full(model: nn.Module, names: list[str]) -> Masks:
    """Masks that keep everything, for the named parameters."""
    return {name: torch.ones_like(model.get_parameter(name), dtype=torch.bool) for name in names}


def of_zeros(model: nn.Module, names: list[str]) -> Masks:
    """Masks that keep what is not zero now."""
    return {name: model.get_parameter(name).detach() != 0 for name in names}


def sparsity(masks: Mapping[str, Tensor]) -> float:
    """The fraction of zeros over all masked weights."""
    total = sum(mask.numel() for mask in masks.values())
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / total if total else 0.0


class MaskedOptimizer:
    """Hooks on an optimizer: gradients of pruned weights are zeroed before a step, the weights after it.

    Zeroed gradients let the moments of pruned weights die out; zeroed weights undo what momentum still moves.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, masks: Masks) -> None:
        self.model = model
        self.masks = masks
        self._hooks = (
            optimizer.register_step_pre_hook(lambda *_: self.mask_gradients()),
            optimizer.register_step_post_hook(lambda *_: self._mask_weights()),
        )

    def remove(self) -> None:
        """Let the optimizer go; the masks stay as they are."""
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zero the gradients of pruned weights; before clipping, so that they count for nothing in the norm."""
        for name, mask in self.masks.items():
            gradient = self.model.get_parameter(name).grad
            if gradient is not None:
                gradient.mul_(mask)

    @torch.no_grad()
    def _mask_weights(self) -> None:
        for name, mask in self.masks.items():
            self.model.get_parameter(name).mul_(mask)
