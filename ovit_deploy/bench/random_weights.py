"""A timm model with random weights and random zeros: what an engine would gain, before any training."""

from typing import Any

import torch
from torch import nn

from ovit_deploy import families
from ovit_deploy.selectors import match

LAYERS = (nn.Linear, nn.Conv2d)


def make_sparse(model: nn.Module, sparsity: float, *, block: int = 1, seed: int) -> nn.Module:
    """The same model, a random ``sparsity`` of what its family prunes set to zero in place, ``block`` together."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in sparse_layers(model):
            weight = layer.weight.view(-1, block)  # type: ignore[operator, union-attr]
            weight[torch.randperm(len(weight), generator=draw)[: round(sparsity * len(weight))]] = 0
    return model


def sparse_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name and layer of what is made sparse."""
    config: Any = getattr(model, "pretrained_cfg", {})
    layers = {f"{name}.weight": (name, layer) for name, layer in model.named_modules() if isinstance(layer, LAYERS)}
    shapes = {name: tuple(layer.weight.shape) for name, (_, layer) in layers.items()}  # type: ignore[union-attr]
    return [layers[name] for name in match(families.targets_of(config.get("architecture", ""), shapes), shapes)]
