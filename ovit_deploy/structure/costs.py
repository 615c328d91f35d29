"""What a structure costs: parameters or multiply-accumulates for one image, or a time that was measured.

The first two are linear in heads and neurons; a time is a curve of each (`Times`).

A head of dimension d costs 4 N D d + 2 N^2 d multiply-accumulates at N tokens of D numbers (Q, K, V and the projection;
Q K^T and attention times V), a neuron 2 N D. Norms, softmax, activations and additions are not counted, as is usual.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from torch import nn

from ovit_deploy.errors import ModelError
from ovit_deploy.structure.merging import merging_of
from ovit_deploy.structure.sizes import BlockSizes, Structure
from ovit_deploy.structure.vit import blocks_of


class Prices(Protocol):
    """What parts of a network cost, in whole units; more of a part never costs less."""

    def heads(self, count: int) -> int:
        """So many heads in a block."""
        ...

    def neurons(self, count: int) -> int:
        """So many neurons in a block."""
        ...

    def whole_block(self, sizes: BlockSizes) -> int:
        """A block with all that is in it."""
        ...

    def of(self, structure: Structure) -> int:
        """A whole network."""
        ...


@dataclass(frozen=True)
class Costs:
    """Of one head, one neuron, and what is left of each block without them; ``rest`` is what is outside the blocks."""

    head: int
    neuron: int
    block: Mapping[int, int]
    rest: int

    def heads(self, count: int) -> int:
        """Of so many heads in a block."""
        return self.head * count

    def neurons(self, count: int) -> int:
        """Of so many neurons in a block."""
        return self.neuron * count

    def whole_block(self, sizes: BlockSizes) -> int:
        """Of a block with all that is in it."""
        return self.block[sizes.number] + self.heads(sizes.heads) + self.neurons(sizes.width)

    def of(self, structure: Structure) -> int:
        """Of a whole network."""
        return self.rest + sum(map(self.whole_block, structure.blocks))


@dataclass(frozen=True)
class Times:
    """Measured times of parts in ns, straight between the counts that were measured; a curve never falls.

    Args:
        by_heads: What attention takes, by its heads.
        by_width: What an MLP takes, by its neurons.
        block: What a block takes besides, such as its norms.
        rest: What is outside the blocks.
    """

    by_heads: Mapping[int, int]
    by_width: Mapping[int, int]
    block: int
    rest: int

    def heads(self, count: int) -> int:
        """Of so many heads in a block."""
        return _between(self.by_heads, count)

    def neurons(self, count: int) -> int:
        """Of so many neurons in a block."""
        return _between(self.by_width, count)

    def whole_block(self, sizes: BlockSizes) -> int:
        """Of a block with all that is in it."""
        return self.block + self.heads(sizes.heads) + self.neurons(sizes.width)

    def of(self, structure: Structure) -> int:
        """Of a whole network."""
        return self.rest + sum(map(self.whole_block, structure.blocks))


def _between(curve: Mapping[int, int], count: int) -> int:
    counts = sorted(curve)
    return round(float(np.interp(count, counts, list(accumulate((curve[one] for one in counts), max)))))


def parameters(model: nn.Module) -> Costs:
    """Of a VisionTransformer, in parameters."""
    blocks = blocks_of(model)
    first = next(iter(blocks.values()))
    dim, head_dim = first.attn.qkv.in_features, first.attn.head_dim
    head = head_dim * (4 * dim + 3 * (first.attn.qkv.bias is not None))
    neuron = 2 * dim + (first.mlp.fc1.bias is not None)
    sizes = {number: sum(p.numel() for p in block.parameters()) for number, block in blocks.items()}
    rest = sum(p.numel() for p in model.parameters()) - sum(sizes.values())
    block = {n: sizes[n] - head * b.attn.num_heads - neuron * b.mlp.fc1.out_features for n, b in blocks.items()}
    return Costs(head, neuron, block, rest)


def macs(model: Any) -> Costs:
    """Of a VisionTransformer for one image of its own size, in multiply-accumulates.

    Raises:
        ModelError: its tokens are merged, or pooled by attention, or its patches are not embedded by one convolution.
    """
    from timm.layers import PatchEmbed

    if merging_of(model) is not None:
        raise ModelError(
            f"{type(model).__name__}: its tokens are merged, so that blocks differ in what a head costs",
            "set budget: parameters in the recipe, or merge after the removal",
        )
    blocks = blocks_of(model)
    embed = model.patch_embed
    if type(embed) is not PatchEmbed or embed.num_patches is None or model.attn_pool is not None:
        raise ModelError(
            f"{type(model).__name__}: its stem or its pooling is one whose work we cannot count",
            "set budget: parameters in the recipe",
        )
    attention = next(iter(blocks.values())).attn
    dim, head_dim = attention.qkv.in_features, attention.head_dim
    tokens = embed.num_patches + model.num_prefix_tokens
    heads = [layer for layer in (model.head, getattr(model, "head_dist", None)) if isinstance(layer, nn.Linear)]
    rest = embed.num_patches * math.prod(embed.proj.weight.shape) + sum(layer.weight.numel() for layer in heads)
    head = head_dim * (4 * tokens * dim + 2 * tokens**2)
    return Costs(head, 2 * tokens * dim, dict.fromkeys(blocks, 0), rest)


def counting(costs: Costs, *, head: int = 0, neuron: int = 0, block: int = 0) -> Costs:
    """Prices of another kind for the same blocks: to count heads, neurons or blocks themselves."""
    return replace(costs, head=head, neuron=neuron, block=dict.fromkeys(costs.block, block), rest=0)
