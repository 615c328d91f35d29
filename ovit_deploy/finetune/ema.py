"""An exponential moving average of the weights that keeps pruned weights zero."""

from collections.abc import Mapping

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn


class WeightAverage:
    """timm's `ModelEmaV3`, aware of masks.

    After every step ``average <- decay * average + (1 - decay) * weights``, and pruned weights of the average are
    exactly zero. A pruning moves the kept weights to make up for the removed ones, so an average over weights from
    before it belongs to another model: `restart` begins anew there. The decay warms up, ``min(decay, 1 - (1 + t) **
    (-2 / 3))`` for the t-th step since the restart, so that the weights right after a pruning are soon forgotten.

    Args:
        model: whose weights and buffers are averaged.
        decay: of the average, such as 0.9998.
        masks: which weights are kept; the same mapping that pruning changes.
    """

    def __init__(self, model: nn.Module, decay: float, masks: Mapping[str, Tensor]) -> None:
        self.model = model
        self.masks = masks
        self.decay = decay
        self.steps = 0
        self.average = self._begun()

    def restart(self) -> None:
        """Forget everything but the weights as they are now, and have their shapes."""
        self.steps = 0
        self.average = self._begun()

    def _begun(self) -> ModelEmaV3:
        return ModelEmaV3(self.model, decay=self.decay, use_warmup=True)

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after an optimizer step in."""
        self.steps += 1
        # timm's first step copies, and its warm-up counts from the second
        self.average.update(self.model, step=self.steps + 1)
        for name, mask in self.masks.items():
            self.average.module.get_parameter(name).mul_(mask)

    def copy_to_model(self) -> None:
        """Put the average in place of the model's weights and buffers."""
        self.model.load_state_dict(self.average.module.state_dict())
