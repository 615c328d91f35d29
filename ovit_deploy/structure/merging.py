"""Token merging (ToMe: Bolya et al., "Token Merging: Your ViT But Faster", arXiv 2210.09461): fewer tokens on the way.

Between attention and MLP, tokens are split alternately into A and B; the r tokens of A whose keys are most like one of
B's are averaged into it (bipartite soft matching, section 3). A token that stands for s others counts s times in
averages, and in softmax by log s (proportional attention). The schedule is fixed, so shapes are static and the graph
exports: a sort, gathers, and a product with a one-hot matrix where ToMe scatters.

The model keeps its weights and their names; only its ``blocks`` are of another class, and r of each block is data.

Shape suffixes: B images, N tokens, D numbers of a token, H heads, A and S tokens of both sets, R merged ones.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ovit_deploy.errors import ModelError
from ovit_deploy.structure.vit import blocks_of

_NEVER = -2.0  # below every cosine


class MergingBlocks(nn.Sequential):
    """The blocks of a VisionTransformer, between whose halves tokens are merged."""

    per_block: dict[int, int]  # r by the number of a block
    num_prefix: int  # class tokens, which are not merged
    restores: bool  # whether what follows averages over tokens: each is then given back as often as it counts

    def forward(self, x_BND: Tensor) -> Tensor:  # pyrefly: ignore[bad-override-param-name]
        """Tokens to tokens: fewer, unless it restores them."""
        sizes_BN1, places_BN = None, None
        for name, block in self.named_children():
            x_BND, keys_BND = _attend(block, x_BND, sizes_BN1)
            count = min(self.per_block.get(int(name), 0), (x_BND.shape[1] - self.num_prefix) // 2)
            if count > 0:
                sizes_BN1 = torch.ones_like(x_BND[..., :1]) if sizes_BN1 is None else sizes_BN1
                x_BND, sizes_BN1, to_BN = merged(x_BND, sizes_BN1, keys_BND, count, self.num_prefix)
                places_BN = to_BN if places_BN is None else to_BN.gather(1, places_BN)
            x_BND = _widened(block, x_BND)
        return _picked(x_BND, places_BN) if self.restores and places_BN is not None else x_BND


def merge_tokens(model: Any, per_block: Mapping[int, int]) -> None:
    """Let a model merge tokens, in place.

    Args:
        model: A VisionTransformer of timm with one class token or none.
        per_block: How many tokens go in a block, by its number; never more than half of those that are there.

    Raises:
        ModelError: It is another model, or its attention's products are quantized.
    """
    blocks = blocks_of(model)
    if model.num_prefix_tokens > 1:
        raise ModelError(
            f"{model.num_prefix_tokens} tokens beside those of patches: where they stand after merging is not kept",
            "merge the tokens of a model with one class token or none",
        )
    for block in blocks.values():
        _check(block.attn)
    model.blocks.__class__ = MergingBlocks
    model.blocks.per_block = {number: count for number, count in per_block.items() if count}
    model.blocks.num_prefix, model.blocks.restores = model.num_prefix_tokens, model.global_pool != "token"


def merging_of(model: Any) -> dict[str, int] | None:
    """How many tokens go in each block, by its number, as checkpoints carry it; None where none are merged."""
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, MergingBlocks):
        return None
    return {str(number): count for number, count in blocks.per_block.items()}


def _attend(block: Any, x_BND: Tensor, sizes_BN1: Tensor | None) -> tuple[Tensor, Tensor]:
    """The first half of a block with proportional attention; its output, and the keys averaged over heads."""
    attention, (num_images, num_tokens, _) = block.attn, x_BND.shape
    _check(attention)
    qkv = attention.qkv(block.norm1(x_BND))
    qkv = qkv.reshape(num_images, num_tokens, 3, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    q_BHND, k_BHND, v_BHND = qkv.unbind(0)
    q_BHND, k_BHND = attention.q_norm(q_BHND), attention.k_norm(k_BHND)
    scores_BHNN = (q_BHND * attention.scale) @ k_BHND.transpose(-2, -1)
    if sizes_BN1 is not None:
        scores_BHNN = scores_BHNN + sizes_BN1.log().transpose(1, 2)[:, None]
    mixed_BHND = attention.attn_drop(scores_BHNN.softmax(dim=-1)) @ v_BHND
    mixed_BND = mixed_BHND.transpose(1, 2).reshape(num_images, num_tokens, attention.attn_dim)
    mixed_BND = attention.proj_drop(attention.proj(mixed_BND))
    return x_BND + block.drop_path1(block.ls1(mixed_BND)), k_BHND.mean(1)


def _widened(block: Any, x_BND: Tensor) -> Tensor:
    """The second half of a block."""
    return x_BND + block.drop_path2(block.ls2(block.mlp(block.norm2(x_BND))))


def _check(attention: nn.Module) -> None:
    """Refuse attention that does more than timm's, such as rounding the factors of its products."""
    from timm.models.vision_transformer import Attention

    if type(attention) is not Attention:
        raise ModelError(
            f"tokens cannot be merged with attention {type(attention).__name__}", "leave out attention_products"
        )


def merged(
    x_BND: Tensor, sizes_BN1: Tensor, keys_BND: Tensor, count: int, num_prefix: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Average ``count`` tokens of A into those of B that they are most like.

    Returns:
        Tokens and sizes: what stays of A, then B. The index among them of each token that there was [B, N].
    """
    keys_BND = keys_BND / keys_BND.norm(dim=-1, keepdim=True)
    likeness_BAS = keys_BND[:, ::2] @ keys_BND[:, 1::2].transpose(1, 2)
    best_BA, partner_BA = likeness_BAS.max(-1)
    best_BA = torch.cat([torch.full_like(best_BA[:, :num_prefix], _NEVER), best_BA[:, num_prefix:]], 1)
    num_a, num_b = likeness_BAS.shape[1:]
    kept = num_a - count
    order_BA = best_BA.topk(num_a, largest=False).indices  # the class token comes first, and stays so
    stay, gone_BR = order_BA[:, :kept], order_BA[:, kept:]
    others = torch.arange(num_b, device=x_BND.device)
    into_BRS = (partner_BA.gather(1, gone_BR)[..., None] == others).to(x_BND.dtype)

    def joined(values: Tensor) -> Tensor:
        a, b = values[:, ::2], values[:, 1::2]
        return torch.cat([_picked(a, stay), b + into_BRS.transpose(1, 2) @ _picked(a, gone_BR)], 1)

    sizes = joined(sizes_BN1)
    rank_BA = order_BA.argsort(1)
    to_BA = torch.where(rank_BA < kept, rank_BA, kept + partner_BA)
    pairs = torch.stack([to_BA[:, :num_b], (kept + others).expand_as(to_BA[:, :num_b])], 2).flatten(1)
    return joined(x_BND * sizes_BN1) / sizes, sizes, torch.cat([pairs, to_BA[:, num_b:]], 1)


def _picked(values_BND: Tensor, index_BN: Tensor) -> Tensor:
    return values_BND.gather(1, index_BN[..., None].expand(-1, -1, values_BND.shape[-1]))
