"""A timm model with random weights and random zeros: what an engine would gain, before any training."""

import re

import torch
from torch import nn

VIT_LAYERS = re.compile(r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))")
LEFT_DENSE = {"patch_embed", "stem", "head", "classifier", "fc"}


def make_sparse(model: nn.Module, sparsity: float, *, seed: int) -> nn.Module:
    """The same model, a random ``sparsity`` of every block's linear weights set to zero in place.

    In a vision transformer these are the four linear layers of each block; in another family all linear and
    convolution weights but the stem's and the head's.
    """
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in sparse_layers(model):
            weight = layer.weight.view(-1)  # type: ignore[operator, union-attr]
            weight[torch.randperm(len(weight), generator=draw)[: round(sparsity * len(weight))]] = 0
    return model


def sparse_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name and layer of what is made sparse."""
    layers = [named for named in model.named_modules() if isinstance(named[1], nn.Linear | nn.Conv2d)]
    blocks = [(name, layer) for name, layer in layers if VIT_LAYERS.fullmatch(name)]
    return blocks or [(name, layer) for name, layer in layers if not set(name.split(".")) & LEFT_DENSE]
