"""What a step minimises: the task's loss, mixed with the dense model's opinion while a recipe distils.

=======================  =================================  ======================================
``training.loss``        labels as they are                 labels mixed by mixup or cutmix
=======================  =================================  ======================================
``cross_entropy``        torch's, with label smoothing      sum over classes of -target * log p
``binary_cross_entropy`` timm's, with label smoothing       the same, on the mixed targets
=======================  =================================  ======================================

Mixed labels are smoothed when they are mixed, as timm does it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from timm.task import FeatureDistillationTask, LogitDistillationTask, TokenDistillationTask, TrainingTask
from torch import Tensor, nn

from ovit_deploy.errors import RecipeError, TrainingError, is_out_of_memory
from ovit_deploy.finetune.actions import State
from ovit_deploy.finetune.layer_distillation import LayerDistillation, layers_of
from ovit_deploy.recipe.modifiers import DistillationModifier, PerLayerDistillationModifier
from ovit_deploy.recipe.schema import Training


def mixing(training: Training, num_classes: int) -> Mixup | None:
    """timm's mixup and cutmix of a batch with itself in reverse order; None where nothing is mixed.

    Raises:
        RecipeError: labels are to be mixed, but the model does not say of how many classes.
    """
    if not training.augmentation.mixes:
        return None
    if num_classes < 1:
        raise RecipeError("mixup and cutmix: the model has no num_classes", "use a timm model, or mix nothing")
    return Mixup(
        mixup_alpha=training.augmentation.mixup,
        cutmix_alpha=training.augmentation.cutmix,
        prob=training.augmentation.mix_probability,
        switch_prob=training.augmentation.cutmix_share,
        label_smoothing=training.label_smoothing,
        num_classes=num_classes,
    )


def criterion_for(training: Training) -> nn.Module:
    """The task's loss; see the table above."""
    if training.loss == "binary_cross_entropy":
        return BinaryCrossEntropy(smoothing=training.label_smoothing)
    if training.augmentation.mixes:
        return SoftTargetCrossEntropy()
    return nn.CrossEntropyLoss(label_smoothing=training.label_smoothing)


def check_distillable(model: nn.Module, modifier: DistillationModifier | PerLayerDistillationModifier) -> None:
    """Refuse a kind of distillation that the model has no place for.

    Raises:
        RecipeError: no distillation token, no features before the classifier, or no layer of a name.
    """
    if isinstance(modifier, PerLayerDistillationModifier):
        layers_of(model, modifier)
        return
    name = type(model).__name__
    if modifier.kind == "token" and not hasattr(model, "set_distilled_training"):
        raise RecipeError(
            f"kind token: {name} has no distillation token",
            "use kind logit, or a model such as deit_tiny_distilled_patch16_224",
        )
    if modifier.kind == "feature" and not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
        raise RecipeError(f"kind feature: {name} does not give its features", "use kind logit")


@dataclass(frozen=True)
class StepLoss:
    """What one step's images came to: the mean loss, and how many were told right (by their larger label)."""

    loss: float
    correct: int
    images: int


def random_states(device: torch.device) -> list[Tensor]:
    """Where torch's generators stand."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def put_random_states_back(states: list[Tensor], device: torch.device) -> None:
    """Let torch draw again what it drew since `random_states`."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


class Objective:
    """The loss as a function of images and targets, by the distillation that is on at the time."""

    def __init__(self, state: State, teacher: nn.Module | None, training: Training) -> None:
        self.state = state
        self.teacher = teacher
        self.training = training
        self.criterion = criterion_for(training)
        self.task: TrainingTask | LayerDistillation | None = None
        self.modifier: DistillationModifier | PerLayerDistillationModifier | None = None

    def backward(self, images: Tensor, targets: Tensor) -> StepLoss:
        """Add the gradients of the mean loss over all images of all ranks, ``batch_size`` of them at once.

        Each part counts by its share of the images, so that the gradients are those of one large batch, up to rounding
        (and, where the model draws at random, up to its draws). Where memory runs out, the step is taken again with
        half as many images at once, and so are all later ones.

        Raises:
            TrainingError: memory runs out with one image at once.
        """
        ranks = self.state.ranks
        while True:
            size = self.state.at_once or self.training.batch_size
            drawn = random_states(images.device)
            try:
                total, correct = self._in_parts(images, targets, size)
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if min(size, len(images)) == 1:
                    raise TrainingError(
                        f"memory runs out with one image at once ({error})", "use a smaller model or a larger machine"
                    ) from error
            # Here, where the error and the tensors in its traceback are gone.
            self._halve(size, len(images))
            put_random_states_back(drawn, images.device)
        ranks.add_up(parameter.grad for parameter in self.state.model.parameters() if parameter.grad is not None)
        ranks.take_first(self.state.model.buffers())
        total, correct = ranks.totals(total, correct)
        return StepLoss(total, int(correct), len(images) * ranks.size)

    def _in_parts(self, images: Tensor, targets: Tensor, size: int) -> tuple[float, int]:
        """Add this rank's share of the gradients, ``size`` images at once; its part of the loss, how many are right."""
        total, correct = 0.0, 0
        num_images = len(images) * self.state.ranks.size
        for some, wanted in zip(images.split(size), targets.split(size), strict=True):
            loss, logits = self(some, wanted)
            share = loss * (len(some) / num_images)
            share.backward()
            total += float(share.detach())
            labels = wanted if wanted.ndim == 1 else wanted.argmax(1)
            correct += int((logits.argmax(1) == labels).sum())
        return total, correct

    def _halve(self, size: int, num_images: int) -> None:
        """Take fewer images at once from here on, and forget the gradients so far."""
        size = min(size, num_images)
        self.state.at_once = -(-size // 2)
        self.state.model.zero_grad()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        fewer = f"memory runs out with {size} images at once: {self.state.at_once} from here on"
        self.state.report(f"{fewer}, {num_images} a step as before")

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss, and the model's logits."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.training.precision == "bfloat16"):
            self._follow(self.state.distillation)
            if self.task is None:
                logits = self.state.model(images)
                return self.criterion(logits, targets), logits
            told = self.task(images, targets)
            return told["loss"], told["output"]

    def end(self) -> None:
        """End distillation, if it is on."""
        self._follow(None)

    def _follow(self, modifier: DistillationModifier | PerLayerDistillationModifier | None) -> None:
        """Begin, change or end distillation."""
        if modifier is self.modifier:
            return
        if isinstance(self.task, LayerDistillation):
            self.task.remove()
        if isinstance(self.modifier, DistillationModifier) and self.modifier.kind == "token":
            talks_twice: Any = self.state.model  # a class and a distillation token, two outputs while training
            talks_twice.set_distilled_training(False)
        self.modifier = modifier
        self.task = None if modifier is None else self._task(modifier)

    def _task(self, modifier: DistillationModifier | PerLayerDistillationModifier) -> TrainingTask | LayerDistillation:
        assert self.teacher is not None
        if isinstance(modifier, PerLayerDistillationModifier):
            return LayerDistillation(self.state.model, self.teacher, self.criterion, modifier)
        shared: dict[str, Any] = {
            "criterion": self.criterion,
            "task_loss_weight": 1 - modifier.hardness,
            "device": next(self.state.model.parameters()).device,
            "verbose": False,
        }
        models = (self.state.model, self.teacher)
        match modifier.kind:
            case "logit":
                return LogitDistillationTask(*models, temperature=modifier.temperature, **shared)
            case "feature":
                return FeatureDistillationTask(*models, **shared)
            case "token":
                kind = modifier.token_target
                return TokenDistillationTask(*models, distill_type=kind, temperature=modifier.temperature, **shared)
