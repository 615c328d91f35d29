import math

import pytest
import torch
from cases import tiny_vit
from run_to_kill import RECIPES, SPEC, images
from torch import nn

from ovit_deploy.finetune.rehearsal import rehearse
from ovit_deploy.flops import flops
from ovit_deploy.models import Choice
from ovit_deploy.recipe.load import parse_recipe


def counts(recipe: str, tmp_path) -> dict[str, int]:
    text = RECIPES[recipe].replace("num_grads: 32", "num_grads: 512")
    parts = rehearse(parse_recipe(text), Choice(SPEC), images(), scratch=tmp_path)
    assert all(math.isfinite(part.seconds) and part.seconds >= 0 for part in parts)
    assert not list(tmp_path.iterdir())
    found: dict[str, int] = {}
    for part in parts:
        found[part.name] = found.get(part.name, 0) + part.count
    return found


def test_a_rehearsal_counts_every_part_of_a_run(tmp_path) -> None:
    """Eight steps an epoch; distilling from 0.5 to 2.5; prunings at 1, 1.5 and 2."""
    assert counts("gradual", tmp_path) == {
        "set up": 1,
        "pruning by OViT": 3,
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
    with torch.device("meta"):
        model = tiny_vit()
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    found = flops(model, [f"{name}.weight" for name in layers])
    expected = dict.fromkeys(layers, 10.0) | {"patch_embed.proj": 8.0, "head": 2.0}
    assert found.per_weight == {f"{name}.weight": count for name, count in expected.items()}
    products = sum(expected[name] * layer.weight.numel() for name, layer in layers.items())
    attention = 2 * 2 * (2 * 5 * 5 * 32)  # in each of two blocks Q K^T and attention times V
    assert found.total == pytest.approx(products + attention)
