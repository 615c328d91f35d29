"""Parts of a network taken out for good: smaller matrices, not zeros in large ones.

A removal is planned as data first (`cuts`), for each parameter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ovit_deploy.errors import ModelError
from ovit_deploy.structure.cutting import Cut, carry_out
from ovit_deploy.structure.sizes import Structure
from ovit_deploy.structure.vit import blocks_of, structure_of

Numbers = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True)
class Kept:
    """What stays: the numbers of heads and neurons by the number of their block, ascending; other blocks go."""

    heads: Numbers
    neurons: Numbers

    def __post_init__(self) -> None:
        assert self.heads.keys() == self.neurons.keys() and self.heads, "the same blocks, at least one"
        for numbers in (*self.heads.values(), *self.neurons.values()):
            assert numbers and list(numbers) == sorted(set(numbers)), "ascending, at least one a block"


def everything(model: nn.Module) -> Kept:
    """All heads and neurons of all blocks."""
    blocks = structure_of(model).blocks
    return Kept(
        {block.number: tuple(range(block.heads)) for block in blocks},
        {block.number: tuple(range(block.width)) for block in blocks},
    )


def cuts(model: nn.Module, kept: Kept) -> dict[str, Cut | None]:
    """How each parameter in the blocks is cut, by name; None where it goes with its block."""
    plan: dict[str, Cut | None] = {}
    for number, block in blocks_of(model).items():
        gone = number not in kept.heads
        own = {} if gone else _block_cuts(block, kept.heads[number], kept.neurons[number])
        for name, _ in block.named_parameters():
            plan[f"blocks.{number}.{name}"] = None if gone else own.get(name, ())
    return plan


def _block_cuts(block: Any, heads: tuple[int, ...], neurons: tuple[int, ...]) -> dict[str, Cut]:
    attention = block.attn
    columns = torch.tensor(heads)[:, None] * attention.head_dim + torch.arange(attention.head_dim)
    columns, total = columns.flatten(), attention.num_heads * attention.head_dim
    rows = torch.cat([part * total + columns for part in range(3)])  # q, k and v stand below one another
    width = torch.tensor(neurons)
    return {
        "attn.qkv.weight": ((0, rows),),
        "attn.qkv.bias": ((0, rows),),
        "attn.proj.weight": ((1, columns),),
        "mlp.fc1.weight": ((0, width),),
        "mlp.fc1.bias": ((0, width),),
        "mlp.fc2.weight": ((1, width),),
    }


def remove(model: Any, kept: Kept) -> dict[str, Cut | None]:
    """Take all that is not ``kept`` out of ``model``, in place: parameters that change are new objects.

    The scale of attention stays that of its head size. Names stay, too: ``blocks.3`` is ``blocks.3`` without
    ``blocks.2``.

    Returns:
        How each parameter of the blocks was cut, as `cuts`.

    Raises:
        ModelError: the model has blocks that we cannot cut, or is quantized.
    """
    plan = cuts(model, kept)
    for number, block in blocks_of(model).items():
        if any(type(layer) is not nn.Linear for layer in _layers(block)):
            raise ModelError("the model is quantized: its parts cannot be removed", "remove parts first, then quantize")
        if number not in kept.heads:
            delattr(model.blocks, str(number))
    carry_out(model, plan)
    for block in blocks_of(model).values():
        block.attn.attn_dim = block.attn.proj.in_features
        block.attn.num_heads = block.attn.attn_dim // block.attn.head_dim
    return plan


def shrink(model: nn.Module, structure: Structure) -> dict[str, Cut | None]:
    """Bring a model to ``structure`` in place; its first heads and neurons stay, to be given other weights.

    Raises:
        ModelError: the model has fewer parts than that.
    """
    whole = {block.number: block for block in structure_of(model).blocks}
    for block in structure.blocks:
        there = whole.get(block.number)
        if there is None or there.heads < block.heads or there.width < block.width:
            raise ModelError(f"blocks.{block.number}: the structure has more than the model", "check --checkpoint")
    heads = {block.number: tuple(range(block.heads)) for block in structure.blocks}
    return remove(model, Kept(heads, {block.number: tuple(range(block.width)) for block in structure.blocks}))


def _layers(block: Any) -> tuple[nn.Module, ...]:
    return block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2
