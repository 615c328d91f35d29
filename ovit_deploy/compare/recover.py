"""The gradual twin of a one-shot comparison: every cell is trained for some epochs, the dense model too.

The paper's one-shot-and-finetune setting (arXiv 2210.09223, section 4) at any length: a recipe says the schedule, masks
hold the zeros, and every cell sees the same batches in the same order.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ovit_deploy.data import ImageData, Preprocessing, train_loader
from ovit_deploy.errors import RecipeError
from ovit_deploy.finetune import loop
from ovit_deploy.finetune.actions import State
from ovit_deploy.finetune.drop_path import set_drop_path
from ovit_deploy.finetune.optimizer import optimizer_for
from ovit_deploy.pruning import Calibration
from ovit_deploy.recipe import Recipe, timeline
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.recipe.timeline import Distill, Prune, Remove


@dataclass(frozen=True)
class Recovery:
    """Training after pruning.

    Args:
        recipe: How long and with which schedule; it prunes nothing.
        data: Whose training images it sees.
        dense: The teacher, where the recipe distils.
        seed: Of the order of the images and their augmentation.
        watch: Told of each step.
    """

    recipe: Recipe
    data: ImageData
    dense: nn.Module
    seed: int
    watch: Callable[[loop.Progress], None] = lambda _: None

    def __post_init__(self) -> None:
        if any(isinstance(item.action, Prune | Remove) for item in timeline(self.recipe).dated):
            raise RecipeError(f"{self.recipe.source}: prunes", "a recipe for --finetune only trains")

    def train(self, model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Any]:
        """Train ``model`` in place; its zeros stay.

        Returns:
            Epochs, and the figures of the last one.
        """
        plan = timeline(self.recipe)
        training = self.recipe.training.model_copy(update={"seed": self.seed})
        if training.augmentation.drop_path:
            set_drop_path(model, training.augmentation.drop_path)
        state = State(
            model=model,
            optimizer=optimizer_for(model, training),
            targets=resolve(self.recipe, {name: tuple(p.shape) for name, p in model.named_parameters()}),
            calibration=_none,
            memory_budget=None,
            report=lambda _: None,
            masks=dict(masks),
        )
        distils = any(isinstance(item.action, Distill) for item in plan.dated)
        lines: list[dict[str, Any]] = []
        loop.train(
            state,
            train_loader(self.data.train, Preprocessing.of(model), training),
            plan,
            training,
            teacher=deepcopy(self.dense).requires_grad_(False) if distils else None,
            watch=self.watch,
            record=lines.append,
        )
        last = {key: lines[-1][key] for key in ("loss", "train_top1", "learning_rate")} if lines else {}
        return {"recipe": self.recipe.name, "epochs": plan.num_epochs, **last}


def _none(num_images: int, draw: int = 0) -> Calibration:
    """A recipe without pruning asks for no calibration images."""
    raise AssertionError(f"{num_images} calibration images asked for by a recipe that prunes nothing")
