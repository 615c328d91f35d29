"""Gradients of pruned weights are zero from the backward pass on: clipping in a user's loop must not count them."""

from torch import nn
from torch.utils.hooks import RemovableHandle

from ovit_deploy.finetune.masks import Masks


class MaskedGradients:
    """Hooks on the parameters that have a mask.

    Args:
        model: Whose parameters.
        masks: By name; looked at anew in each backward pass.
    """

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        self.model = model
        self.masks = masks
        self._hooks: dict[str, RemovableHandle] = {}

    def hold(self) -> None:
        """Mask what has a mask by now."""
        for name in self.masks.keys() - self._hooks.keys():
            parameter = self.model.get_parameter(name)
            if parameter.requires_grad:
                self._hooks[name] = parameter.register_hook(lambda gradient, name=name: gradient * self.masks[name])

    def remove(self) -> None:
        """Leave gradients whole, as calibration wants them."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()
