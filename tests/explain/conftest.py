from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import tiny_vit
from PIL import Image

from ovit_deploy import checkpoint
from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.cli import app

SPEC = ModelSpec(
    "vit_tiny_patch16_224",
    {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 2},
    (0.5, 0.5, 0.5),
    (0.25, 0.25, 0.25),
)


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors are so small that a second thread only gets in the way."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory) -> Path:
    """A folder with images of two classes, and the weights of a tiny ViT."""
    folder = tmp_path_factory.mktemp("work")
    draw = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 10)):
        for number, name in enumerate(("dark", "light")):
            (folder / "images" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 200, (16, 16, 3), dtype=np.uint8) + np.uint8(50 * number)
                Image.fromarray(pixels).save(folder / "images" / split / name / f"{index}.png")
    model = tiny_vit()
    model.reset_classifier(2)
    checkpoint.save_tensors(folder / "dense.safetensors", model.state_dict(), SPEC)
    return folder


@pytest.fixture
def explain(workplace, monkeypatch, tmp_path) -> Callable[..., None]:
    """``ovit-deploy explain`` on the tiny ViT, with a cache of its own."""
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("OVIT_DEPLOY_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> None:
        given = ["explain", "--checkpoint", "dense.safetensors", *arguments]
        app(given, exit_on_error=False, result_action="return_value")

    return run
