import math

import pytest
from run_to_kill import RECIPES, SPEC, images
from torch import nn

from ovit_deploy import models
from ovit_deploy.finetune import rehearsal
from ovit_deploy.finetune.rehearsal import rehearse
from ovit_deploy.flops import flops
from ovit_deploy.models import Choice
from ovit_deploy.recipe.load import parse_recipe


def counts(recipe: str, tmp_path) -> dict[str, int]:
    parts = rehearse(parse_recipe(RECIPES[recipe]), Choice(SPEC), images(), scratch=tmp_path)
    assert all(math.isfinite(part.seconds) and part.seconds >= 0 for part in parts)
    assert not list(tmp_path.iterdir())
    found: dict[str, int] = {}
    for part in parts:
        found[part.name] = found.get(part.name, 0) + part.count
    return found


def test_a_rehearsal_counts_every_part_of_a_run(tmp_path, monkeypatch) -> None:
    """Eight steps an epoch; distilling from 0.5 to 2.5; prunings at 1, 1.5 and 2."""
    monkeypatch.setattr(rehearsal, "FEW", 8)
    monkeypatch.setattr(rehearsal, "MORE", 16)
    assert counts("gradual", tmp_path) == {
        "set up": 1,
        "pruning by OViT, 32 images": 3,
        "training step": 8,
        "training step, distilling": 16,
        "checkpoint": 6,
        "test": 1,
    }


def test_quantized_steps_are_their_own_part(tmp_path) -> None:
    found = counts("int8", tmp_path)
    assert sum(count for name, count in found.items() if name.startswith("training step")) == 32
    assert sum(count for name, count in found.items() if name.endswith("quantized")) == 12


def test_turns_of_ac_dc_are_counted(tmp_path) -> None:
    found = counts("ac/dc", tmp_path)
    assert (found["training step"], found["pruning by ACDC"]) == (24, 3)


def test_flops_are_those_of_the_layers() -> None:
    """Five tokens, of which four are patches of 8 x 8 pixels; attention's own products on top."""
    model = models.outline(SPEC)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    found = flops(model, [f"{name}.weight" for name in layers])
    expected = dict.fromkeys(layers, 10.0) | {"patch_embed.proj": 8.0, "head": 2.0}
    assert found.per_weight == {f"{name}.weight": count for name, count in expected.items()}
    products = sum(expected[name] * layer.weight.numel() for name, layer in layers.items())
    attention = 2 * 2 * (2 * 5 * 5 * 16)  # in each of two blocks Q K^T and attention times V
    assert found.total == pytest.approx(products + attention)
