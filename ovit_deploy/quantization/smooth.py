"""Smoothing: what makes LayerNorm's outputs hard to round is moved into the weights after it (arXiv 2211.10438).

A channel j of a LayerNorm's output that is much larger than the others widens the range of all. With

    s_j = max|x_j|^strength / max|w_j|^(1 - strength)

the LayerNorm's weight and bias are divided by s_j and the columns j of the layers that read it are multiplied by s_j:
the same function, in which activations and weights are about as hard to round. Zeros stay zeros.
"""

from collections.abc import Iterable, Iterator

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ovit_deploy.errors import ModelError


@torch.no_grad()
def smooth(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], strength: float) -> int:
    """Smooth ``model`` in place: the outputs of both LayerNorms of every block.

    Args:
        model: not quantized yet.
        batches: images to see the ranges on; their labels are not looked at.
        strength: from 0 (all difficulty stays in the activations) to 1 (all goes into the weights).

    Returns:
        The number of LayerNorms.

    Raises:
        ModelError: the model has no block of a vision transformer.
    """
    pairs = list(_pairs(model))
    if not pairs:
        raise ModelError("smoothing finds no LayerNorm before a linear layer", "leave out --smooth")
    for (norm, layer), seen_C in zip(pairs, _largest(model, [norm for norm, _ in pairs], batches), strict=True):
        weight_C = layer.weight.abs().amax(dim=0)
        scale_C = seen_C**strength / weight_C.clamp(min=1e-5) ** (1 - strength)
        scale_C = torch.where((seen_C > 0) & (weight_C > 0), scale_C, 1.0)
        norm.weight.div_(scale_C)
        if norm.bias is not None:
            norm.bias.div_(scale_C)
        layer.weight.mul_(scale_C)
    return len(pairs)


def _pairs(model: nn.Module) -> Iterator[tuple[nn.LayerNorm, nn.Linear]]:
    """Each LayerNorm with the only layer that reads it."""
    for block in model.modules():
        if isinstance(block, Block):
            for norm, layer in ((block.norm1, block.attn.qkv), (block.norm2, block.mlp.fc1)):
                if isinstance(norm, nn.LayerNorm) and isinstance(layer, nn.Linear):
                    yield norm, layer


def _largest(model: nn.Module, norms: list[nn.LayerNorm], batches: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """The largest absolute value of every channel of each LayerNorm's output."""
    largest = [torch.zeros(norm.normalized_shape) for norm in norms]

    def see(place: int, output: Tensor) -> None:
        largest[place] = torch.maximum(largest[place], output.abs().flatten(0, -2).amax(dim=0))

    hooks = [
        norm.register_forward_hook(lambda _, __, output, place=place: see(place, output))
        for place, norm in enumerate(norms)
    ]
    for images, _ in batches:
        model(images)
    for hook in hooks:
        hook.remove()
    return largest
