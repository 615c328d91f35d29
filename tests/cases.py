"""Models and calibration streams that are small enough to check by hand."""

import timm
import torch
from torch import Tensor, nn

from ovit_deploy.pruning import Calibration


def tiny_vit(seed: int = 0) -> nn.Module:
    """A timm ViT of four patches and two blocks, 32 thousand weights."""
    torch.manual_seed(seed)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=10
    )


class TinyConvNet(nn.Module):
    """A strided, a grouped and a depthwise convolution, with what surrounds them in real networks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=2)
        self.act = nn.ReLU(inplace=True)
        self.depthwise = nn.Conv2d(12, 12, (3, 1), padding=(1, 0), groups=12)
        self.head = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(images)))
        x = self.depthwise(self.act(self.grouped(x)))
        return self.head(x.mean(dim=(2, 3)))


def tiny_convnet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return TinyConvNet()


def images_and_labels(num_samples: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(num_samples, 3, 16, 16, generator=draw)
    return images.to(dtype), torch.randint(0, 10, (num_samples,), generator=draw)


def tiny_calibration(num_samples: int = 40, batch: int = 16, dtype: torch.dtype = torch.float32) -> Calibration:
    """Batches that do not divide the number of samples."""
    images, labels = images_and_labels(num_samples, dtype=dtype)
    return Calibration(lambda: zip(images.split(batch), labels.split(batch), strict=True), num_samples)


def full_masks(model: nn.Module, names: list[str] | None = None) -> dict[str, Tensor]:
    """Masks that keep everything, of the named weights or of all matrices in the blocks of a ViT."""
    if names is None:
        names = [
            name
            for name, parameter in model.named_parameters()
            if name.startswith("blocks.") and name.endswith(".weight") and parameter.ndim == 2
        ]
    return {name: torch.ones_like(model.get_parameter(name), dtype=torch.bool) for name in names}


def fisher_problem(num_blocks: int, block_size: int, seed: int = 0, condition: float = 1e2) -> tuple[Tensor, Tensor]:
    """Random weights [K, B] and Fisher blocks [K, B, B] of a given condition, in float64."""
    draw = torch.Generator().manual_seed(seed)
    shape = (num_blocks, block_size, block_size)
    basis_KBB, _ = torch.linalg.qr(torch.randn(shape, generator=draw, dtype=torch.float64))
    spectrum_B = torch.logspace(0, torch.tensor(condition).log10().item(), block_size, dtype=torch.float64) / condition
    w_KB = torch.randn(num_blocks, block_size, generator=draw, dtype=torch.float64)
    return w_KB, (basis_KBB * spectrum_B) @ basis_KBB.mT
