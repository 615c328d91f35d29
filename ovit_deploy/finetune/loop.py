"""The plain torch loop. This is all of it, and where a recipe's actions fall:

    for step in range(first, num_steps):                        # first: 0, or where a checkpoint was taken
        carry out the actions due at this step's epoch          # prune, hold zeros, distil, weight decay
        learning rate <- timeline                               # a function of the epoch
        images, targets <- augmented batch; seed by step; mixup or cutmix
        gradients <- task loss, mixed with the dense model's opinion while distilling     # losses.py; over all ranks
        mask gradients; clip; optimizer.step(); mask weights    # zeros stay zeros; no step that is not finite
        average of the weights <- weights, masked               # where the recipe has one: ema.py
        save                                                    # after prunings, too; generations.py
    carry out the actions dated at the very end
    weights <- their average, where the recipe has one          # decided by the recipe, not by any image

Epochs are fractions: step / steps_per_epoch, steps are optimizer steps. What a step draws at random depends on the
seed and the step alone: the images and their augmentation (data/loaders.py), mixing, drop path.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from ovit_deploy.data import Chance, seed_all, train_batches
from ovit_deploy.errors import TrainingError
from ovit_deploy.finetune import dynamic, masks
from ovit_deploy.finetune.actions import State, carry_out
from ovit_deploy.finetune.ema import WeightAverage
from ovit_deploy.finetune.losses import Objective, mixing
from ovit_deploy.finetune.standing import Standing, Tally
from ovit_deploy.finetune.tree import Tree
from ovit_deploy.recipe.schema import Training
from ovit_deploy.recipe.timeline import Timeline

MOST_LEFT_OUT = 3  # steps in a row


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


def train(
    state: State,
    loader: DataLoader[Any],
    timeline: Timeline,
    training: Training,
    *,
    teacher: nn.Module | None,
    watch: Callable[[Progress], None],
    record: Callable[[dict[str, Any]], None],
    save: Callable[[Standing, bool], None] = lambda *_: None,
    start: Tree | None = None,
) -> None:
    """Carry out ``timeline`` on ``state.model``.

    Args:
        state: the model, its optimizer and masks; changed in place.
        loader: augmented training images, this rank's share of a batch a step; its length is an epoch.
        timeline: what happens when.
        training: loss, mixing, batches at once, gradient clipping, averaging, seed.
        teacher: the dense model, where the recipe distils.
        watch: called after each step.
        record: called once an epoch, and once a pruning, with a line for metrics.jsonl.
        save: called after each step and each pruning with where training stands, and whether an epoch or a pruning
            ended there; it may raise, to stop.
        start: where training stood when it was saved, to go on from there.

    Raises:
        TrainingError: the loss or the gradient is not finite in several steps in a row; none of them is applied.
    """
    masked = masks.MaskedOptimizer(state.model, state.optimizer, state.masks)
    average = WeightAverage(state.model, training.ema_decay, state.masks) if training.ema_decay else None
    dynamic.watch_movement(state)
    steps_per_epoch = len(loader)
    num_steps = round(timeline.num_epochs * steps_per_epoch)
    objective = Objective(state, teacher, training)
    classes: Any = getattr(state.model, "num_classes", 0)
    mix = mixing(training, classes)
    at = Standing(state, average)
    if start is not None:
        at.put_back(start, timeline, 1 / steps_per_epoch)
    act = _Actor(at, timeline, steps_per_epoch, training.seed, record, save)
    batches, device = train_batches(loader, first_step=at.step), next(state.model.parameters()).device
    sparsity = masks.sparsity(state.masks)
    ranks = state.ranks
    for step in range(at.step, num_steps):
        epoch = step / steps_per_epoch
        if act():
            sparsity = masks.sparsity(state.masks)
        rate = timeline.learning_rate(epoch, 1 / steps_per_epoch)
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        images, targets = (part.to(device) for part in next(batches))
        seed_all(Chance.STEP, training.seed, step)
        images, targets = mix(images, targets) if mix else (images, targets)
        if ranks.rank:  # all mix alike; what each drops is its own
            seed_all(Chance.STEP, training.seed, step, ranks.rank)
        state.model.train()
        state.optimizer.zero_grad()
        found = objective.backward(images, targets)
        masked.mask_gradients()
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), training.clip_gradient_norm or math.inf)
        if _finite(at, found.loss, float(norm), epoch):
            state.optimizer.step()
            if average is not None:
                average.update()
            at.tally.add(found)
        done = Progress(step + 1, num_steps, (step + 1) / steps_per_epoch, *at.tally.means(), sparsity, rate)
        watch(done)
        ends = (step + 1) % steps_per_epoch == 0 or step + 1 == num_steps
        if ends:
            record(_epoch_line(done, at.tally))
            at.tally = Tally()
        at.step, at.acted = step + 1, False
        save(at, ends)
    act()
    if average is not None:
        average.copy_to_model()
    objective.end()
    state.model.eval()


@dataclass(frozen=True)
class _Actor:
    """Carries out what is due where training stands."""

    at: Standing
    timeline: Timeline
    steps_per_epoch: int
    seed: int
    record: Callable[[dict[str, Any]], None]
    save: Callable[[Standing, bool], None]

    def __call__(self) -> bool:
        """Carry it out, unless it is done; whether anything was due."""
        at, epoch = self.at, self.at.step / self.steps_per_epoch
        due = [] if at.acted else self.timeline.due(epoch, 1 / self.steps_per_epoch)
        if due:
            seed_all(Chance.ACTION, self.seed, at.step)
        before = len(at.state.prunings)
        for action in due:
            count = len(at.state.prunings)
            carry_out(action, at.state, epoch)
            for line in [*at.state.prunings[count:], *at.state.notes]:
                self.record({"step": at.step} | line)
            at.state.notes.clear()
            if at.average is not None and len(at.state.prunings) > count:
                at.average.restart()
        at.acted = True
        if len(at.state.prunings) > before:
            self.save(at, True)
            if at.state.ranks.is_first:
                at.state.shelf.clear()
        return bool(due)


def _finite(at: Standing, loss: float, norm: float, epoch: float) -> bool:
    """Whether loss and gradient are finite, so that the step may be applied.

    One batch may be at fault (a damaged image, an overflow in bfloat16): such a step is left out, reported and counted
    in the epoch's record. Several in a row are the fault of weights or rates.

    Raises:
        TrainingError: ``MOST_LEFT_OUT`` steps in a row were left out already.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        at.left_out = 0
        return True
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
    if at.left_out >= MOST_LEFT_OUT:
        raise TrainingError(
            f"{what} at epoch {epoch:.2f} (step {at.step}), as in the {at.left_out} steps before it",
            "lower init_lr or learning_rate in the recipe, or check the images and the checkpoint",
        )
    at.left_out += 1
    at.tally.left_out += 1
    at.state.report(f"{what} at epoch {epoch:.2f} (step {at.step}): this step is not applied")
    return False


def _epoch_line(done: Progress, tally: Tally) -> dict[str, Any]:
    return {
        "event": "epoch",
        "epoch": done.epoch,
        "step": done.step,
        "loss": done.loss,
        "train_top1": done.train_top1,
        "sparsity": done.sparsity,
        "learning_rate": done.learning_rate,
        "steps_left_out": tally.left_out,
        "seconds": tally.seconds,
    }
