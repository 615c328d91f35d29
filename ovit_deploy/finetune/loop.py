"""The plain torch loop. This is all of it, and where a recipe's actions fall:

    for step in range(num_steps):
        carry out the actions due at this step's epoch          # prune, hold zeros, distil, weight decay
        learning rate <- timeline                               # a function of the epoch
        images, labels <- augmented batch
        loss <- cross-entropy, mixed with the dense model's opinion while distilling
        loss.backward(); clip; optimizer.step()                 # masked before and after: zeros stay zeros
    carry out the actions dated at the very end

Epochs are fractions: step / steps_per_epoch.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.task import LogitDistillationTask
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ovit_deploy.errors import RecipeError, TrainingError
from ovit_deploy.finetune import dynamic, masks
from ovit_deploy.finetune.actions import State, carry_out
from ovit_deploy.recipe.modifiers import DistillationModifier
from ovit_deploy.recipe.schema import Training
from ovit_deploy.recipe.timeline import Timeline


@dataclass(frozen=True)
class Progress:
    """One finished step, or pruning, for whoever watches."""

    step: int
    num_steps: int
    epoch: float
    loss: float
    train_top1: float
    sparsity: float
    learning_rate: float


def optimizer_for(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """timm's optimizer of that name; no weight decay on biases, norms and what the model exempts.

    Raises:
        RecipeError: timm has no such optimizer.
    """
    try:
        return create_optimizer_v2(
            model, opt=training.optimizer, lr=training.learning_rate, weight_decay=training.weight_decay
        )
    except ValueError as error:
        raise RecipeError(f"training.optimizer: {error}", "for example adamw, sgd, lamb") from error


def train(
    state: State,
    loader: DataLoader[Any],
    timeline: Timeline,
    training: Training,
    *,
    teacher: nn.Module | None,
    watch: Callable[[Progress], None],
    record: Callable[[dict[str, Any]], None],
) -> None:
    """Carry out ``timeline`` on ``state.model``.

    Args:
        state: the model, its optimizer and masks; changed in place.
        loader: augmented training batches; its length is an epoch.
        timeline: what happens when.
        training: gradient clipping and label smoothing.
        teacher: the dense model, where the recipe distils.
        watch: called after each step.
        record: called once an epoch, and once a pruning, with a line for metrics.jsonl.

    Raises:
        TrainingError: the loss is not finite; the step is not applied.
    """
    masks.MaskedOptimizer(state.model, state.optimizer, state.masks)
    dynamic.watch_movement(state)
    steps_per_epoch = len(loader)
    num_steps = round(timeline.num_epochs * steps_per_epoch)
    tally = _Tally()
    losses = _Losses(state, teacher, training)
    batches = _endless(loader)
    sparsity = masks.sparsity(state.masks)
    for step in range(num_steps):
        epoch = step / steps_per_epoch
        if _act(state, timeline, epoch, 1 / steps_per_epoch, record):
            sparsity = masks.sparsity(state.masks)
        rate = timeline.learning_rate(epoch, 1 / steps_per_epoch)
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        images, labels = next(batches)
        state.model.train()
        loss, logits = losses(images, labels)
        _finite(loss, step, epoch)
        state.optimizer.zero_grad()
        loss.backward()
        if training.clip_gradient_norm is not None:
            nn.utils.clip_grad_norm_(state.model.parameters(), training.clip_gradient_norm)
        state.optimizer.step()
        tally.add(float(loss.detach()), int((logits.argmax(1) == labels).sum()), len(labels))
        done = Progress(step + 1, num_steps, (step + 1) / steps_per_epoch, *tally.means(), sparsity, rate)
        watch(done)
        if (step + 1) % steps_per_epoch == 0 or step + 1 == num_steps:
            record(_epoch_line(done, tally))
            tally = _Tally()
    _act(state, timeline, num_steps / steps_per_epoch, 1 / steps_per_epoch, record)
    state.model.eval()


def _act(state: State, timeline: Timeline, epoch: float, step: float, record: Callable[[dict[str, Any]], None]) -> bool:
    """Carry out what is due; whether anything was."""
    due = timeline.due(epoch, step)
    for action in due:
        count = len(state.prunings)
        carry_out(action, state, epoch)
        for line in state.prunings[count:]:
            record(line)
    return bool(due)


def _endless(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def _finite(loss: Tensor, step: int, epoch: float) -> None:
    if not math.isfinite(float(loss.detach())):
        raise TrainingError(
            f"the loss is {float(loss.detach())} at epoch {epoch:.2f} (step {step})",
            "lower init_lr or learning_rate in the recipe, or check the images and the checkpoint",
        )


def _epoch_line(done: Progress, tally: "_Tally") -> dict[str, Any]:
    return {
        "event": "epoch",
        "epoch": done.epoch,
        "step": done.step,
        "loss": done.loss,
        "train_top1": done.train_top1,
        "sparsity": done.sparsity,
        "learning_rate": done.learning_rate,
        "seconds": time.perf_counter() - tally.started,
    }


class _Losses:
    """Cross-entropy with label smoothing, mixed with the teacher's opinion by timm's distillation task."""

    def __init__(self, state: State, teacher: nn.Module | None, training: Training) -> None:
        self.state = state
        self.teacher = teacher
        self.criterion = nn.CrossEntropyLoss(label_smoothing=training.label_smoothing)
        self.bfloat16 = training.precision == "bfloat16"
        self.task: LogitDistillationTask | None = None
        self.modifier: DistillationModifier | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            return self._loss(images, labels)

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.state.distillation is None:
            logits = self.state.model(images)
            return self.criterion(logits, labels), logits
        told = self._task(self.state.distillation)(images, labels)
        return told["loss"], told["output"]

    def _task(self, modifier: DistillationModifier) -> LogitDistillationTask:
        if self.task is None or modifier is not self.modifier:
            assert self.teacher is not None
            self.task = LogitDistillationTask(
                self.state.model,
                self.teacher,
                criterion=self.criterion,
                task_loss_weight=1 - modifier.hardness,
                temperature=modifier.temperature,
                device=torch.device("cpu"),
                verbose=False,
            )
            self.modifier = modifier
        return self.task


class _Tally:
    """Sums over the steps of an epoch."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.loss = 0.0
        self.correct = self.images = self.steps = 0

    def add(self, loss: float, correct: int, images: int) -> None:
        self.loss += loss
        self.correct += correct
        self.images += images
        self.steps += 1

    def means(self) -> tuple[float, float]:
        """Mean loss and training top-1 so far."""
        return self.loss / self.steps, self.correct / self.images
