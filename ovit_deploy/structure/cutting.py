"""Tensors of a model cut for good, in place: each by the indices that stay along its dimensions.

The plan is data, by the names of parameters and buffers. It cuts alike what goes with parameters: masks, an
optimizer's moments, an average.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Cut = tuple[tuple[int, Tensor], ...]  # (dimension, indices that stay), one after the other
Cuts = Mapping[str, Cut | None]  # None: the tensor goes


def cut(tensor: Tensor, how: Cut) -> Tensor:
    """A copy of what stays of ``tensor``."""
    for dim, index in how:
        tensor = tensor.index_select(dim, index.to(tensor.device))
    return tensor.clone() if not how else tensor


@torch.no_grad()
def carry_out(model: nn.Module, plan: Cuts) -> None:
    """Cut the tensors that stay; parameters that change are new objects, and modules say their new sizes."""
    for name, how in plan.items():
        if not how:
            continue
        path, _, leaf = name.rpartition(".")
        owner = model.get_submodule(path)
        tensor = getattr(owner, leaf)
        new = cut(tensor.detach(), how)
        setattr(owner, leaf, nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new)
    for path in dict.fromkeys(name.rpartition(".")[0] for name, how in plan.items() if how):
        _tell_sizes(model.get_submodule(path))


def _tell_sizes(layer: nn.Module) -> None:
    """Let a layer say the sizes that its weights have now."""
    match layer:
        case nn.Linear():
            layer.out_features, layer.in_features = layer.weight.shape
        case nn.Conv2d():
            depthwise = layer.groups > 1
            layer.out_channels, inputs = layer.weight.shape[:2]
            layer.groups = layer.out_channels if depthwise else 1
            layer.in_channels = inputs * layer.groups
        case nn.LayerNorm():
            layer.normalized_shape = tuple(layer.weight.shape)
        case _BatchNorm():
            assert layer.running_mean is not None
            layer.num_features = len(layer.running_mean)
