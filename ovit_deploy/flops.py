"""Floating-point operations of a model for one image, counted by torch; two for a multiplication and its addition.

Products of matrices and convolutions count, as is usual; norms, softmax and activations do not.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm.data
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Flops:
    """Of a whole model for one image, and how many of them one weight of a tensor takes."""

    total: int
    per_weight: dict[str, float]


def flops(model: nn.Module, names: Iterable[str]) -> Flops:
    """Counted in one forward pass over an image of the model's own size; on the meta device it costs nothing.

    A weight of another layer than nn.Linear or nn.Conv2d takes none: where it is multiplied is not known.
    """
    size = timm.data.resolve_model_data_config(model)["input_size"]
    image = torch.zeros(1, *size, device=next(model.parameters()).device)
    found: dict[str, float] = dict.fromkeys(names, 0.0)
    hooks = [
        model.get_submodule(name.rpartition(".")[0]).register_forward_hook(partial(_count, found, name))
        for name in found
        if name.endswith(".weight")
    ]
    modes = [(module, module.training) for module in model.modules()]
    counter: Any = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:  # CPU kernels of attention are not counted
            model.eval()(image)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return Flops(counter.get_total_flops(), found)


def _count(found: dict[str, float], name: str, layer: nn.Module, _: Any, output: Tensor) -> None:
    """Two operations for each token or output pixel that a weight meets."""
    if isinstance(layer, nn.Linear):
        found[name] += 2 * output.numel() / layer.out_features
    elif isinstance(layer, nn.Conv2d):
        found[name] += 2 * output.numel() / layer.out_channels
