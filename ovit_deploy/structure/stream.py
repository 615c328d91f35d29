"""The embedding width of a vision transformer: channels of its residual stream.

Every block reads the stream through LayerNorms, whose means and deviations are of all its channels. So zeros in what
reads a channel do not make up a narrower model; what does is a mask in the LayerNorms as well, which then take
statistics of the channels that stay. That masked model answers as the narrower one. A removal changes the model more
than its channels alone are worth, and training recovers it.
"""

from typing import Any

import torch
from torch import nn

from ovit_deploy.errors import ModelError
from ovit_deploy.structure.channels import Group, Slice
from ovit_deploy.structure.vit import blocks_of

NAME = "stream"


def stream_of(model: Any) -> Group:
    """All that makes, scales or reads the channels of the stream.

    Raises:
        ModelError: the model is no VisionTransformer of timm, or has layers on its stream that we do not know.
    """
    from timm.layers import PatchEmbed

    blocks = blocks_of(model)
    if type(model.patch_embed) is not PatchEmbed or model.attn_pool is not None:
        raise ModelError(
            f"{type(model).__name__}: its stem or its pooling is one whose channels we cannot cut",
            "remove heads and neurons instead: !HeadWidthPruningModifier",
        )
    width = next(iter(blocks.values())).attn.qkv.in_features
    makes = {"patch_embed.proj": 0}
    reads = [name for name in ("head", "head_dist") if isinstance(getattr(model, name, None), nn.Linear)]
    along = [f"patch_embed.{name}" for name, _ in model.patch_embed.norm.named_parameters(prefix="norm")]
    along += [name for name in ("cls_token", "reg_token", "dist_token", "pos_embed") if _is_there(model, name)]
    norms = {name: getattr(model, name) for name in ("norm_pre", "norm", "fc_norm")}
    for number, block in blocks.items():
        path = f"blocks.{number}"
        makes |= {f"{path}.attn.proj": 0, f"{path}.mlp.fc2": 0}
        reads += [f"{path}.attn.qkv", f"{path}.mlp.fc1"]
        norms |= {f"{path}.norm1": block.norm1, f"{path}.norm2": block.norm2}
        along += [f"{path}.{ls}.{name}" for ls in ("ls1", "ls2") for name, _ in getattr(block, ls).named_parameters()]
    for name, norm in norms.items():
        if not isinstance(norm, nn.Identity | nn.LayerNorm):
            raise ModelError(
                f"{name} is a {type(norm).__name__}, which we cannot cut", "remove heads and neurons instead"
            )
        along += [f"{name}.{leaf}" for leaf, _ in norm.named_parameters()]
    index = torch.arange(width)[:, None]
    slices = [Slice(f"{name}.weight", dim, index) for name, dim in makes.items()]
    slices += [Slice(f"{name}.bias", 0, index) for name in makes if model.get_submodule(name).bias is not None]
    slices += [Slice(name, model.get_parameter(name).ndim - 1, index) for name in along]
    slices += [Slice(f"{name}.weight", 1, index, reads=True) for name in reads]
    return Group(NAME, tuple(slices))


def _is_there(model: Any, name: str) -> bool:
    return isinstance(getattr(model, name, None), nn.Parameter)
