"""The blocks of timm's isotropic vision transformers, checked for being what we know how to cut."""

from typing import Any

from torch import nn

from ovit_deploy.errors import ModelError
from ovit_deploy.structure.sizes import BlockSizes, Structure


def blocks_of(model: nn.Module) -> dict[int, Any]:
    """The blocks by their number, as timm makes them; those that are gone are not among them.

    Raises:
        ModelError: the model is no VisionTransformer of timm, or has blocks of another make.
    """
    from timm.models.vision_transformer import VisionTransformer

    if not isinstance(model, VisionTransformer):
        raise ModelError(
            f"{type(model).__name__}: heads, widths and blocks are known of timm's VisionTransformer only",
            "use a ViT or DeiT, or prune without structure, for example !OViTPruningModifier",
        )
    blocks = {int(number): block for number, block in model.blocks.named_children()}
    for number, block in blocks.items():
        unknown = _unknown(block)
        if unknown:
            raise ModelError(f"blocks.{number} has {unknown}, which we cannot cut", "prune it without structure")
    return blocks


def structure_of(model: nn.Module) -> Structure:
    """How many heads and neurons each block has, and the width where it is not the one that timm built.

    Raises:
        ModelError: as `blocks_of`.
    """
    blocks = blocks_of(model)
    sizes = tuple(BlockSizes(n, block.attn.num_heads, block.mlp.fc1.out_features) for n, block in blocks.items())
    width = next(iter(blocks.values())).attn.qkv.in_features
    return Structure(sizes, None if width == model.embed_dim else width)


def _unknown(block: Any) -> str | None:
    """What is unusual about a block, in a few words."""
    from timm.layers import Mlp
    from timm.models.vision_transformer import Attention, Block

    if type(block) is not Block:
        return f"the make {type(block).__name__}"
    if not isinstance(block.attn, Attention):
        return f"attention {type(block.attn).__name__}"
    if block.attn.gate is not None:
        return "gated attention"
    if type(block.mlp) is not Mlp or not isinstance(block.mlp.fc1, nn.Linear):
        return f"an MLP {type(block.mlp).__name__}"
    if not (isinstance(block.attn.norm, nn.Identity) and isinstance(block.mlp.norm, nn.Identity)):
        return "a norm over heads or neurons"
    return None
