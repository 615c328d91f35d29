"""A tiny ViT with zeros in its blocks, its images, and what the exporter makes of it; each made once."""

from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from export_cases import tiny_vit
from torch import Tensor, nn

from ovit_deploy.export.card import Facts
from ovit_deploy.export.profile import Profile, load_profile
from ovit_deploy.export.to_onnx import to_onnx


@pytest.fixture(scope="session")
def masks() -> dict[str, Tensor]:
    """Three of four weights pruned in every Linear of the blocks; True = kept."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(weight.shape, generator=generator) < 0.25
        for name, weight in tiny_vit().named_parameters()
        if name.startswith("blocks") and weight.ndim == 2
    }


@pytest.fixture(scope="session")
def model(masks: dict[str, Tensor]) -> nn.Module:
    model = tiny_vit()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0.0, 0.2, generator=generator)
            weight.mul_(masks.get(name, torch.tensor(1.0)))
    return model


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="session")
def profile() -> Profile:
    return load_profile("deepsparse")


@pytest.fixture(scope="session")
def raw(model: nn.Module, images: Tensor, profile: Profile) -> ir.Model:
    """The exporter's own graph, before all passes; do not change it."""
    return to_onnx(model, images, profile=profile.model_copy(update={"passes": ()}))


@pytest.fixture(scope="session")
def fast(model: nn.Module, images: Tensor, profile: Profile) -> ir.Model:
    """The graph in DeepSparse's form; do not change it."""
    return to_onnx(model, images, profile=profile)


@pytest.fixture(scope="session")
def fast_file(fast: ir.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fast") / "model.onnx"
    ir.save(fast, path)
    return path


@pytest.fixture(scope="session")
def facts() -> Facts:
    return Facts(
        name="vit_tiny_patch16_224",
        kwargs={"depth": 2},
        classes=tuple("abcdefghij"),
        preprocessing={"input_size": [1, 28, 28], "mean": [0.3], "std": [0.35]},
        run={"seed": 0},
    )
