from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from ovit_deploy.checkpoint import ModelSpec, save_tensors
from ovit_deploy.engines import environments
from ovit_deploy.engines.process import EngineProcess
from ovit_deploy.errors import EngineError

KWARGS = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 5}
SPEC = ModelSpec("vit_tiny_patch16_224", KWARGS)


@pytest.fixture
def network(tmp_path: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(SPEC.name, **KWARGS).eval()
    save_tensors(tmp_path / "model.safetensors", network.state_dict(), SPEC)
    np.save(tmp_path / "images.npy", np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32))
    return network


@pytest.mark.parametrize(
    ("setup", "atol"),
    [
        ("pytorch", 1e-5),
        ("pytorch:precision=bf16", 0.1),
        pytest.param("pytorch:compile=true", 1e-4, marks=pytest.mark.slow),
    ],
)
def test_it_computes_what_the_checkpoint_says(
    setup: str, atol: float, network: torch.nn.Module, tmp_path: Path
) -> None:
    images = tmp_path / "images.npy"
    with EngineProcess(setup, environments.prepare("pytorch", print), timeout_s=300) as process:
        about = process.load(tmp_path / "model.safetensors", images, batch_size=2, threads=1).about
        process.infer(images, tmp_path / "logits.npy")
    with torch.inference_mode():
        expected = network(torch.from_numpy(np.load(images))).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=atol)
    assert about["threads"] == 1
    assert about["compiled"] == ("compile" in setup)
    assert set(about["precisions"]) == {"bfloat16" if "bf16" in setup else "float32"}


def test_a_corrupt_checkpoint_is_an_error_with_its_reason(network: torch.nn.Module, tmp_path: Path) -> None:
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with (
        EngineProcess("pytorch", environments.prepare("pytorch", print), timeout_s=60) as process,
        pytest.raises(EngineError, match=r"pytorch failed loading model\.safetensors: .*not a whole safetensors file"),
    ):
        process.load(tmp_path / "model.safetensors", tmp_path / "images.npy", batch_size=2, threads=1)
