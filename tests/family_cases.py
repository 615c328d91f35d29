"""The smallest network of each family: timm's own test models, or members with few and narrow layers."""

from typing import Any

import torch
from torch import nn

from ovit_deploy import families, models
from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.models import Choice
from ovit_deploy.selectors import match

NARROW: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2}
SMALL: dict[str, dict[str, Any]] = {  # by timm's name: what timm is told besides
    "test_vit": {},
    "deit_tiny_distilled_patch16_224": NARROW,  # two heads
    "xcit_nano_12_p16_224": NARROW,  # cross-covariance attention, batch norm, depthwise convolutions
    "swin_tiny_patch4_window7_224": {"embed_dim": 16, "depths": (1, 1, 1), "num_heads": (1, 2, 4)},  # windows
    "efficientformer_l1": {"depths": (1, 1, 1, 2), "embed_dims": (8, 16, 24, 32)},  # batch norm, 224 pixels only
    "test_resnet": {},  # batch norm
    "test_efficientnet": {},  # depthwise convolutions, squeeze-and-excitation
    "test_convnext": {},
    "eva02_tiny_patch14_224": NARROW | {"img_size": 56},  # gated MLPs, rotary positions
    "cait_xxs24_224": NARROW,  # talking heads, class attention
    "mobilevitv2_050": {},  # separable attention
    "test_maxvit": {},  # windows and grids
}
OTHERS: dict[str, dict[str, Any]] = {
    "tiny_vit_5m_224": {"embed_dims": (16, 32, 48, 64), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
    "vit_small_patch14_dinov2": NARROW | {"img_size": 56},
    "efficientformerv2_s0": {"embed_dims": (16, 24, 32, 48), "depths": (1, 1, 2, 2), "num_vit": 1},
    "test_byobnet": {},  # of no family
}


def small_model(name: str, img_size: int = 64) -> tuple[nn.Module, list[str]]:
    """The network with random weights for ten classes, in eval mode, and its targets."""
    torch.manual_seed(0)
    kwargs = {"num_classes": 10, "img_size": img_size, **(SMALL | OTHERS)[name]}
    if name.startswith("efficientformer"):
        del kwargs["img_size"]
    model = models.build(Choice(ModelSpec(name, kwargs)))
    shapes = {parameter: tuple(weight.shape) for parameter, weight in model.named_parameters()}
    return model, match(families.targets_of(name, shapes), shapes)
