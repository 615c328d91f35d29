"""Its presence puts this folder on the path: tests write ``from cases import tiny_vit``, ``import oracles``.

What tests ask of a benchmark is not its times, so the machine may be busy: they run beside each other.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# New examples on every developer's machine; the same ones where a failure would stop somebody else's work.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

os.environ["OVIT_DEPLOY_ALLOW_NOISE"] = "1"


@pytest.fixture(scope="session")
def workplace(tmp_path_factory) -> Path:
    """A folder with images of two classes, and the weights of a tiny ViT: ``images``, ``dense.safetensors``."""
    import numpy as np
    from cases import tiny_vit
    from PIL import Image

    from ovit_deploy import checkpoint
    from ovit_deploy.checkpoint import ModelSpec

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
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 2}
    spec = ModelSpec("vit_tiny_patch16_224", sizes, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    checkpoint.save_tensors(folder / "dense.safetensors", model.state_dict(), spec)
    return folder
