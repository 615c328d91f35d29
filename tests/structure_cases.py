"""Small vision transformers of every make that parts are removed from, and hypothesis strategies of what stays."""

import timm
import torch
from hypothesis import strategies as st
from torch import nn

from ovit_deploy.structure import Kept, structure_of

SIZES = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
MAKES = {
    "vit": ("vit_tiny_patch16_224", {}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "layer scale, registers, mean": ("vit_small_patch14_reg4_dinov2", {"patch_size": 8, "global_pool": "avg"}),
    "normed q and k, no biases": ("vit_tiny_patch16_224", {"qk_norm": True, "qkv_bias": False, "proj_bias": False}),
}


def small_vit(make: str = "vit", seed: int = 0, **sizes: int) -> nn.Module:
    """In eval mode, with weights that make every part matter."""
    name, kwargs = MAKES[make]
    torch.manual_seed(seed)
    model = timm.create_model(name, **(SIZES | {"mlp_ratio": 2} | kwargs | sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@st.composite
def kept_of(draw: st.DrawFn, model: nn.Module) -> Kept:
    """Any blocks, in each of them any heads and any neurons, at least one of each."""
    sizes = {block.number: block for block in structure_of(model).blocks}
    numbers = draw(st.lists(st.sampled_from(sorted(sizes)), min_size=1, unique=True))

    def some(count: int) -> tuple[int, ...]:
        return tuple(sorted(draw(st.sets(st.integers(0, count - 1), min_size=1))))

    return Kept(
        {number: some(sizes[number].heads) for number in sorted(numbers)},
        {number: some(sizes[number].width) for number in sorted(numbers)},
    )


def masked(model: nn.Module, kept: Kept) -> None:
    """Set all weights of parts that go to zero, in place; the shapes stay."""
    with torch.no_grad():
        for name, block in model.blocks.named_children():
            number = int(name)
            layers = (block.attn.proj, block.mlp.fc2)
            if number not in kept.heads:
                for layer in layers:
                    for parameter in layer.parameters():
                        parameter.zero_()
                continue
            dim = block.attn.head_dim
            gone = [n for n in range(block.attn.num_heads) if n not in kept.heads[number]]
            for head in gone:
                block.attn.proj.weight[:, head * dim : (head + 1) * dim] = 0
                for part in range(3):
                    start = (part * block.attn.num_heads + head) * dim
                    for parameter in block.attn.qkv.parameters():
                        parameter[start : start + dim] = 0
            off = [n for n in range(block.mlp.fc1.out_features) if n not in kept.neurons[number]]
            block.mlp.fc2.weight[:, off] = 0
            for parameter in block.mlp.fc1.parameters():
                parameter[off] = 0
