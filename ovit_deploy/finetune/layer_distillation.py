"""Learning from the outputs of the dense model's layers, one by one.

    loss = task loss + gain * sum over layers of mean (s - t)^2 / (mean t^2 + epsilon)

with a layer's outputs s in the student and t in the dense model; without ``normalize`` nothing is divided.
"""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.modifiers import PerLayerDistillationModifier
from ovit_deploy.recipe.names import nearest


def layers_of(model: nn.Module, modifier: PerLayerDistillationModifier) -> list[str]:
    """The layers that are named, in the model's order.

    Raises:
        RecipeError: a name or pattern means no layer.
    """
    names = [name for name, _ in model.named_modules() if name]
    chosen: set[str] = set()
    for wanted in modifier.student_layer_names:
        pattern = wanted.removeprefix("re:")
        try:
            found = [name for name in names if name == wanted or (pattern != wanted and re.match(pattern, name))]
        except re.error as error:
            raise RecipeError(f"student_layer_names: {pattern!r} is not a regular expression: {error}") from error
        if not found:
            raise RecipeError(f"student_layer_names: no layer is named {wanted!r}{nearest(wanted, names)}")
        chosen.update(found)
    return [name for name in names if name in chosen]


class LayerDistillation:
    """Overhears the named layers of the student and of the dense model; called like timm's tasks."""

    def __init__(
        self, model: nn.Module, teacher: nn.Module, criterion: nn.Module, modifier: PerLayerDistillationModifier
    ) -> None:
        self.model, self.teacher, self.criterion, self.modifier = model, teacher, criterion, modifier
        self.names = layers_of(model, modifier)
        self.heard: dict[tuple[str, str], Tensor] = {}
        self.hooks = [
            network.get_submodule(name).register_forward_hook(self._hearing(who, name))
            for who, network in (("student", model), ("teacher", teacher))
            for name in self.names
        ]

    def _hearing(self, who: str, name: str) -> Any:
        def hear(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if not isinstance(output, Tensor):
                raise RecipeError(
                    f"student_layer_names: {name} gives a {type(output).__name__}, not a tensor", "name other layers"
                )
            self.heard[who, name] = output

        return hear

    def __call__(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The loss, and the model's output."""
        logits = self.model(images)
        with torch.no_grad():
            self.teacher(images)
        gaps = [self._gap(self.heard.pop(("student", name)), self.heard.pop(("teacher", name))) for name in self.names]
        return {"loss": self.criterion(logits, targets) + self.modifier.gain * sum(gaps), "output": logits}

    def _gap(self, student: Tensor, teacher: Tensor) -> Tensor:
        gap = functional.mse_loss(student, teacher)
        return gap / (teacher.square().mean() + self.modifier.epsilon) if self.modifier.normalize else gap

    def remove(self) -> None:
        """Overhear no more."""
        for hook in self.hooks:
            hook.remove()
