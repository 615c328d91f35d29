"""A run in small, on this machine: what it will take is measured on its parts and added up.

Every stretch of the timeline between two settings is trained for a few steps, every pruner prunes twice with few images
(what an image takes is the difference), a checkpoint is written, a batch of test images is told. The counts are exact:
steps, prunings, images, epochs. What grows with the model, and not with the images, is done in full: a rehearsal takes
about as long as three prunings, and as much memory as the run.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ovit_deploy import checkpoint, models
from ovit_deploy.data import Chance, ImageData, Preprocessing, eval_loader, seed_all, train_loader
from ovit_deploy.finetune import loop, tree
from ovit_deploy.finetune.actions import State, carry_out
from ovit_deploy.finetune.drop_path import set_drop_path
from ovit_deploy.finetune.ema import WeightAverage
from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.finetune.optimizer import optimizer_for
from ovit_deploy.finetune.run import CalibrationImages, dense_teacher
from ovit_deploy.finetune.standing import Standing
from ovit_deploy.models import Choice
from ovit_deploy.pruning import Ranks
from ovit_deploy.recipe import Recipe, Timeline, timeline
from ovit_deploy.recipe.pruners import EVERY_STEP
from ovit_deploy.recipe.sparsifier import Sparsifier
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.recipe.timeline import Prune, Regrow

WARM, TIMED = 2, 8  # steps
FEW, MORE = 64, 256  # images of the two prunings
_IMAGES = ("num_grads", "num_samples")  # what a pruner calls them


@dataclass(frozen=True)
class Part:
    """Something that a run does ``count`` times."""

    name: str
    count: int
    seconds_each: float

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.count * self.seconds_each


@dataclass
class _Stage:
    """What is rehearsed on."""

    recipe: Recipe
    plan: Timeline
    state: State
    loader: torch.utils.data.DataLoader
    clock: Callable[[], float]

    @property
    def steps_per_epoch(self) -> int:
        return len(self.loader)


def rehearse(
    recipe: Recipe,
    choice: Choice,
    data: ImageData,
    *,
    scratch: Path,
    memory_budget: int | None = None,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Part]:
    """The parts of a run, each with the seconds that it took here.

    Args:
        recipe: as of `ovit_deploy.finetune.run.run`, as the arguments that are not told here.
        choice: the model.
        data: images.
        scratch: a folder in which a checkpoint is written and removed.
        memory_budget: bytes that pruning may use.
        device: where the model is trained.
        report: told what goes on.
        clock: seconds; of the wall, or of the processor.
    """
    seed_all(Chance.START, recipe.training.seed)
    choice = models.completed(choice, classes=data.classes, channels=data.channels)
    began = clock()
    stage = _set_up(recipe, choice, data, clock, device)
    stage.state.memory_budget, stage.state.report, stage.state.scratch = memory_budget, report, scratch
    parts = [Part("set up", 1, clock() - began)]
    parts += _pruning_and_training(stage)
    parts += _checkpoints(stage, scratch)
    tests = eval_loader(data.test, Preprocessing.of(stage.state.model))
    began = clock()
    few = evaluate(stage.state.model, list(islice(tests, 1))).accuracy.total
    each = (clock() - began) / few * len(data.test)  # type: ignore[arg-type]
    return [*parts, Part("test", 2 if choice.weights or choice.pretrained else 1, each)]


def _set_up(
    recipe: Recipe, choice: Choice, data: ImageData, clock: Callable[[], float], device: torch.device | str
) -> _Stage:
    model = models.build(choice).to(device)
    plan = timeline(recipe)
    teacher = dense_teacher(model, plan)
    if recipe.training.augmentation.drop_path:
        set_drop_path(model, recipe.training.augmentation.drop_path)
    preprocessing = Preprocessing.of(model)
    state = State(
        model=model,
        optimizer=optimizer_for(model, recipe.training),
        targets=resolve(recipe, {name: tuple(p.shape) for name, p in model.named_parameters()}),
        calibration=CalibrationImages(data, preprocessing, recipe.training.seed, 0, Ranks.of_process_group()),
        memory_budget=None,
        report=lambda _: None,
        teacher=teacher,
        compat=recipe.compat,
    )
    return _Stage(recipe, plan, state, train_loader(data.train, preprocessing, recipe.training), clock)


def _pruning_and_training(stage: _Stage) -> list[Part]:
    """The timeline from its beginning to its end, with few steps and few images."""
    prunings: dict[str, Part] = {}
    steps: dict[str, Part] = {}
    dates = sorted({0.0, *(item.epoch for item in stage.plan.dated), stage.plan.num_epochs})
    for begin, end in pairwise([*dates, dates[-1]]):
        for action in (item.action for item in stage.plan.dated if item.epoch == begin):
            if isinstance(action, Prune | Regrow):
                _add(prunings, action.place, lambda action=action: _pruning(stage, action))
            else:
                carry_out(action, stage.state, begin)
        count = round(end * stage.steps_per_epoch) - round(begin * stage.steps_per_epoch)
        if count > 0:
            settings = repr((stage.state.distillation, stage.state.quantization, bool(stage.state.masks)))
            _add(steps, settings, lambda: _step(stage), count)
    for modifier, place in stage.plan.pruners:
        if modifier.update_frequency == EVERY_STEP and place in prunings:  # the timeline lists the first and the last
            between = max(round((modifier.end_epoch - modifier.start_epoch) * stage.steps_per_epoch) - 1, 0)
            prunings[place] = replace(prunings[place], count=prunings[place].count + between)
    return [*prunings.values(), *steps.values()]


def _add(parts: dict[str, Part], key: str, measure: Callable[[], Part], count: int = 1) -> None:
    """Count one that was measured before, or measure it."""
    part = parts.get(key)
    parts[key] = measure() if part is None else part
    parts[key] = replace(parts[key], count=count if part is None else part.count + count)


def _step(stage: _Stage) -> Part:
    """A few steps in the loop itself."""
    state, plan = stage.state, stage.plan
    state.report(f"training {WARM + TIMED} steps")
    state.optimizer = optimizer_for(state.model, stage.recipe.training)
    ends: list[float] = []
    short = Timeline((WARM + TIMED) / stage.steps_per_epoch, (), plan.rates, plan.default_rate, compat=plan.compat)
    distillation = state.distillation
    loop.train(
        state,
        stage.loader,
        short,
        stage.recipe.training,
        teacher=state.teacher,
        watch=lambda _: ends.append(stage.clock()),
        record=lambda _: None,
    )
    told = "training step" if distillation is None else "training step, distilling"
    return Part(told + (", quantized" if state.quantization else ""), 1, (ends[-1] - ends[WARM - 1]) / TIMED)


def _pruning(stage: _Stage, action: Prune | Regrow) -> Part:
    """A pruning with all its images, from two with few after one that is not counted (it compiles); the last stays."""
    modifier: Sparsifier = action.modifier
    key = next((key for key in _IMAGES if hasattr(modifier, key)), None)
    name = f"pruning by {modifier.short_name}"
    if key is None or isinstance(action, Regrow) or getattr(modifier, key) <= MORE:
        return Part(name, 1, _timed(stage, action))
    model, masks = copy.deepcopy(stage.state.model.state_dict()), dict(stage.state.masks)
    found = []
    for few in (FEW, FEW, MORE):
        stage.state.model.load_state_dict(model)
        stage.state.masks.clear()
        stage.state.masks.update(masks)
        found.append(_timed(stage, replace(action, modifier=modifier.model_copy(update={key: few}))))
    _, less, more = found
    each, number = (more - less) / (MORE - FEW), getattr(modifier, key)
    return Part(f"{name}, {number} images", 1, more + max(each, 0.0) * (number - MORE))


def _timed(stage: _Stage, action: Prune | Regrow) -> float:
    began = stage.clock()
    carry_out(action, stage.state, 0.0)
    return stage.clock() - began


def _checkpoints(stage: _Stage, scratch: Path) -> list[Part]:
    """One is written; a run writes one at each epoch and each pruning."""
    if not stage.plan.num_epochs:
        return []
    decay = stage.recipe.training.ema_decay
    average = WeightAverage(stage.state.model, decay, stage.state.masks) if decay else None
    with TemporaryDirectory(dir=scratch) as folder:
        began = stage.clock()
        checkpoint.write(Path(folder) / "a.safetensors", tree.to_bytes(Standing(stage.state, average).as_tree()))
        seconds = stage.clock() - began
    prunings = sum(isinstance(item.action, Prune | Regrow) for item in stage.plan.dated)
    return [Part("checkpoint", -int(-stage.plan.num_epochs // 1) + prunings, seconds)]
