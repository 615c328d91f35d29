"""Distillation for a loop that is not ours: it hands over its loss, so inputs and outputs are overheard by a hook."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovit_deploy.errors import RecipeError, TrainingError
from ovit_deploy.recipe.modifiers import DistillationModifier, PerLayerDistillationModifier
from ovit_deploy.recipe.timeline import Distill, Timeline


class Distiller:
    """Mixes a teacher's opinion into a loss that was computed elsewhere.

    ``(1 - hardness) * loss + hardness * T^2 * KL(teacher || student)``, both softened by the temperature T.

    Args:
        model: The student, whose last training batch is overheard.
        teacher: A frozen model, or "self" for the student as it is now.
    """

    def __init__(self, model: nn.Module, teacher: nn.Module | str) -> None:
        self.teacher = copy.deepcopy(model) if isinstance(teacher, str) else teacher
        self.teacher.eval().requires_grad_(False)
        self._heard: tuple[tuple[Any, ...], dict[str, Any], Any] | None = None
        self._hook = model.register_forward_hook(self._hear, with_kwargs=True)

    def _hear(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        if model.training:
            self._heard = (args, kwargs, outputs)

    def mix(self, loss: Tensor, modifier: DistillationModifier) -> Tensor:
        """The mixed loss of the last training batch.

        Raises:
            TrainingError: There was none since the last call, or the model's output is not one tensor.
        """
        heard, self._heard = self._heard, None
        if heard is None:
            raise TrainingError(
                "loss_update without a forward pass in train mode", "call it once after each forward pass"
            )
        args, kwargs, logits = heard
        if not isinstance(logits, Tensor):
            raise TrainingError(
                f"distillation of a {type(logits).__name__}", "the model must return one tensor of logits"
            )
        with torch.no_grad():
            opinion = self.teacher(*args, **kwargs)
        soft = functional.log_softmax(logits / modifier.temperature, -1)
        wanted = functional.log_softmax(opinion / modifier.temperature, -1)
        divergence = functional.kl_div(soft, wanted, reduction="batchmean", log_target=True)
        return (1 - modifier.hardness) * loss + modifier.hardness * modifier.temperature**2 * divergence

    def remove(self) -> None:
        """Stop overhearing."""
        self._hook.remove()


def distiller_for(timeline: Timeline, model: nn.Module, teacher: nn.Module | str | None) -> Distiller | None:
    """What mixes losses, where a recipe distils; none where ``teacher`` is "disable".

    Raises:
        RecipeError: The recipe distils, and there is no teacher.
    """
    if not any(isinstance(item.action, Distill) for item in timeline.dated) or teacher == "disable":
        return None
    if any(isinstance(getattr(item.action, "modifier", None), PerLayerDistillationModifier) for item in timeline.dated):
        raise RecipeError(
            "PerLayerDistillationModifier needs the training loop", "use ovit-deploy prune, or !DistillationModifier"
        )
    if not isinstance(teacher, nn.Module) and teacher != "self":
        raise RecipeError(
            "the recipe distils, and there is no teacher", "pass distillation_teacher: a model, 'self' or 'disable'"
        )
    return Distiller(model, teacher)
