"""Small convolutional and hybrid networks whose channels are removed."""

import copy
from functools import cache

import pytest
import timm
import torch
from torch import Tensor, nn

NETWORKS = [
    *("test_resnet", "test_efficientnet", "test_convnext", "test_byobnet", "swin"),
    pytest.param("efficientformer", marks=pytest.mark.slow),
]
_SIZES = {"efficientformer": 224, "swin": 64}
_MADE = {
    "efficientformer": (
        "efficientformer_l1",
        {"depths": (1, 1, 1, 2), "embed_dims": (8, 16, 16, 24), "num_vit": 1, "num_classes": 10},
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"depths": (1, 1), "embed_dim": 16, "num_heads": (1, 2), "img_size": 64, "window_size": 4, "num_classes": 10},
    ),
}


@cache
def _whole(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    timm_name, kwargs = _MADE.get(name, (name, {"num_classes": 10}))
    overlay = {"input_size": image_of(name).shape[1:]}
    model = timm.create_model(timm_name, pretrained_cfg_overlay=overlay, **kwargs).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim <= 1 and tensor.numel() > 1:
                tensor.copy_(0.75 + 0.5 * torch.rand_like(tensor))
    return model


def network(name: str, seed: int = 0) -> nn.Module:
    """In eval mode, with norms and scales that make every part matter."""
    return copy.deepcopy(_whole(name, seed))


def image_of(name: str) -> Tensor:
    """Two images of a size that the network takes."""
    size = _SIZES.get(name, 32)
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
