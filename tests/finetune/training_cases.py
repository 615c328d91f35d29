"""A training run that is small enough to repeat many times: eight steps an epoch on random images."""

import copy
from typing import Any

import numpy as np
import torch
from cases import tiny_vit
from torch import nn

from ovit_deploy.data import Preprocessing, calibration_batches, train_loader
from ovit_deploy.data.sources import ArrayImages
from ovit_deploy.finetune import loop
from ovit_deploy.finetune.actions import State
from ovit_deploy.finetune.optimizer import optimizer_for
from ovit_deploy.pruning import Calibration
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.recipe.timeline import timeline

SEEN = Preprocessing((3, 16, 16), (0.5,) * 3, (0.5,) * 3)
PRUNE = """
  - !GlobalMagnitudePruningModifier
    params: ['re:blocks.*(attn|mlp).*weight']
    init_sparsity: 0.5
    final_sparsity: 0.75
    start_epoch: 0.5
    end_epoch: 1
    update_frequency: 0.5
"""


def random_images(num_images: int = 64) -> ArrayImages:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 10, num_images)
    pixels = draw.integers(0, 100, (num_images, 16, 16, 3)) + 15 * labels[:, None, None, None]
    return ArrayImages(pixels.astype(np.uint8), labels)


def trained(
    training: str = "",
    modifiers: str = PRUNE,
    *,
    epochs: float = 2,
    batch_size: int = 8,
    model: nn.Module | None = None,
) -> tuple[State, list[Any], list[dict[str, Any]]]:
    """The state after a recipe, its steps and its records."""
    recipe = parse_recipe(
        f"training: {{batch_size: {batch_size}, learning_rate: 1e-2, {training}}}\n"
        f"modifiers:\n  - !EpochRangeModifier {{start_epoch: 0, end_epoch: {epochs}}}{modifiers}"
    )
    model = tiny_vit() if model is None else model
    data = random_images()
    state = State(
        model=model,
        optimizer=optimizer_for(model, recipe.training),
        targets=resolve(recipe, {name: tuple(p.shape) for name, p in model.named_parameters()}),
        calibration=lambda n, draw=0: Calibration(calibration_batches(data, SEEN, n, seed=draw), n),
        memory_budget=None,
        report=lambda _: None,
    )
    steps: list[Any] = []
    records: list[dict[str, Any]] = []
    loop.train(
        state,
        train_loader(data, SEEN, recipe.training),
        timeline(recipe),
        recipe.training,
        teacher=copy.deepcopy(model).eval().requires_grad_(False),
        watch=steps.append,
        record=records.append,
    )
    return state, steps, records


def weights_of(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()
