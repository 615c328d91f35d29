"""The stage behind ``prune`` and ``train``: a recipe carried out on a model and images, into a run folder."""

import contextlib
import copy
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from ovit_deploy import checkpoint, models, working_folder
from ovit_deploy.checkpoint import RUNS, ModelSpec
from ovit_deploy.data import Chance, ImageData, Preprocessing, calibration_batches, eval_loader, seed_all, train_loader
from ovit_deploy.finetune import generations, loop, masks
from ovit_deploy.finetune.actions import State
from ovit_deploy.finetune.drop_path import set_drop_path
from ovit_deploy.finetune.evaluate import Evaluation, evaluate
from ovit_deploy.finetune.fingerprint import Start, versions
from ovit_deploy.finetune.keeping import Asked, Journal, Keeper, noting_signals
from ovit_deploy.finetune.losses import check_distillable
from ovit_deploy.finetune.optimizer import optimizer_for
from ovit_deploy.models import Choice
from ovit_deploy.pruning import Calibration, Method
from ovit_deploy.pruning.batch_norm import NUM_IMAGES
from ovit_deploy.recipe import Recipe, Timeline, timeline
from ovit_deploy.recipe.pruners import GradientPruningModifier
from ovit_deploy.recipe.sparsifier import Sparsifier
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.recipe.timeline import Action, Distill, Prune
from ovit_deploy.working_folder import RESUME


@dataclass(frozen=True)
class Watchers:
    """Who is told what while a run goes on: each step, and each remark."""

    step: Callable[[loop.Progress], None] = lambda _: None
    report: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Finished:
    """A run that is complete: its folder and the facts of its run.json."""

    folder: Path
    facts: dict[str, Any]


def run(
    recipe: Recipe,
    choice: Choice,
    data: ImageData,
    *,
    name: str | None = None,
    runs: Path = RUNS,
    memory_budget: int | None = None,
    watchers: Watchers | None = None,
    methods: Mapping[str, Method] | None = None,
    resume: bool = False,
) -> Finished:
    """Carry out ``recipe`` and leave the result in ``runs/<name>``.

    Args:
        recipe: what to do when.
        choice: the model and where its weights come from; with weights it is measured before training, too.
        data: images to train and to test on. The test images are looked at only before and after.
        name: of the run; by default the recipe's name and the time.
        runs: the folder of all runs.
        memory_budget: bytes that pruning may use, by default half of what is free.
        watchers: who is told how it goes.
        methods: what prunes, by the place of a modifier, instead of what it stands for; such a run cannot be resumed.
        resume: go on with the run ``name`` that was cut off.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM came; the run is saved.
        OvitError: nothing is left behind then, but checkpoints of what was done.
    """
    watchers = watchers or Watchers()
    seed_all(Chance.START, recipe.training.seed)
    choice = models.completed(choice, classes=data.classes, channels=data.channels)
    model = models.build(choice)
    plan = timeline(recipe)
    targets = resolve(recipe, {name: tuple(p.shape) for name, p in model.named_parameters()}, choice.spec.name)
    teacher = _teacher(model, plan)
    if recipe.training.augmentation.drop_path:
        set_drop_path(model, recipe.training.augmentation.drop_path)
    preprocessing = Preprocessing.of(model)
    loader = train_loader(data.train, preprocessing, recipe.training)
    test = eval_loader(data.test, preprocessing)
    name = name or f"{recipe.name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    noting = noting_signals() if not methods else contextlib.nullcontext(Asked())
    with noting as asked, working_folder.new_run(name, runs, resume=resume) as folder:
        watchers.report(f"{choice.spec.name} on {data.name}: {len(loader)} steps an epoch, {plan.num_epochs:g} epochs")
        start = Start.of(recipe, choice, data, model, memory_budget)
        kept = folder / RESUME
        saved = None
        if resume:
            Start.read(kept).check(start, watchers.report)
            saved = generations.newest(kept, watchers.report)
            journal = Journal.from_tree(folder, saved["journal"], saved["training"]["step"])
            watchers.report(f"going on at step {journal.resumed_at[-1]}")
        else:
            start.write(kept)
            journal = Journal(folder, evaluate(model, test) if choice.weights or choice.pretrained else None)
        state = State(
            model=model,
            optimizer=optimizer_for(model, recipe.training),
            targets=targets,
            calibration=lambda n, draw=0: _calibration(data, preprocessing, n, recipe.training.seed + draw),
            memory_budget=memory_budget,
            report=watchers.report,
            teacher=teacher,
            scratch=kept,
            methods=dict(methods or {}),
            compat=recipe.compat,
            batch_norm_images=_calibration(
                data,
                preprocessing,
                min(NUM_IMAGES, len(data.train)),  # type: ignore[arg-type]
                recipe.training.seed,
            ),
        )
        loop.train(
            state,
            loader,
            plan,
            recipe.training,
            teacher=teacher,
            watch=watchers.step,
            record=journal.record,
            save=Keeper(kept, asked, journal, _command(recipe, name)) if not methods else lambda *_: None,
            start=saved["training"] if saved else None,
        )
        facts = _facts(recipe, choice, data, journal.dense, evaluate(model, test), state)
        facts |= {"seconds": journal.seconds, "preprocessing": preprocessing.as_dict()}
        facts |= {"resumed_at_steps": journal.resumed_at} if journal.resumed_at else {}
        _save(folder, state, replace(choice.spec, quantization=facts["quantization"]), recipe, facts)
    return Finished(runs / name, facts)


def _command(recipe: Recipe, name: str) -> str:
    """How a user goes on with a run."""
    prunes = any(isinstance(modifier, Sparsifier) for modifier in recipe.modifiers)
    return f"ovit-deploy {'prune' if prunes else 'train'} --resume {name}"


def _calibration(data: ImageData, preprocessing: Preprocessing, num_images: int, seed: int) -> Calibration:
    return Calibration(calibration_batches(data.train, preprocessing, num_images, seed=seed), num_images)


def _teacher(model: nn.Module, plan: Timeline) -> nn.Module | None:
    """The model as it is now, frozen, if the recipe ever distils or prunes by its answers."""
    for item in plan.dated:
        if isinstance(item.action, Distill) and item.action.modifier:
            check_distillable(model, item.action.modifier)
    if not any(_asks_teacher(item.action) for item in plan.dated):
        return None
    return copy.deepcopy(model).eval().requires_grad_(False)


def _asks_teacher(action: Action) -> bool:
    match action:
        case Distill():
            return True
        case Prune(modifier=GradientPruningModifier(labels="teacher")):
            return True
    return False


def _facts(
    recipe: Recipe, choice: Choice, data: ImageData, dense: Evaluation | None, final: Evaluation, state: State
) -> dict[str, Any]:
    total = sum(p.numel() for p in state.model.parameters())
    zeros = sum(int((p == 0).sum()) for p in state.model.parameters())
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe.name,
        "model": {"name": choice.spec.name, "kwargs": choice.spec.kwargs, "parameters": total},
        "weights": _origin(choice),
        "data": data.name,
        "data_source": data.source,
        "classes": data.classes,
        "seed": recipe.training.seed,
        "saved": "last weights" if recipe.training.ema_decay is None else "average of the weights",
        "dense": _evaluation(dense),
        "final": _evaluation(final),
        "sparsity": {
            "prunable": masks.sparsity(state.masks),
            "all": zeros / total,
            "layers": {name: masks.sparsity({name: mask}) for name, mask in state.masks.items()},
        },
        "prunings": state.prunings,
        "quantization": state.quantization.model_dump(mode="json") if state.quantization else choice.spec.quantization,
        "versions": versions(),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": psutil.cpu_count(logical=False)},
    }


def _origin(choice: Choice) -> str:
    if choice.weights is None:
        return "timm hub" if choice.pretrained else "chance"
    return "embedded" if choice.weights == models.EMBEDDED else str(choice.weights)


def _evaluation(evaluation: Evaluation | None) -> dict[str, Any] | None:
    return None if evaluation is None else evaluation.accuracy.as_dict() | {"loss": evaluation.loss}


def _save(folder: Path, state: State, spec: ModelSpec, recipe: Recipe, facts: dict[str, Any]) -> None:
    checkpoint.save_tensors(folder / "model.safetensors", state.model.state_dict(), spec)
    checkpoint.save_tensors(folder / "masks.safetensors", {n: m.to(torch.uint8) for n, m in state.masks.items()})
    checkpoint.write(folder / "recipe.yaml", recipe.text)
    checkpoint.write(folder / "run.json", json.dumps(facts, indent=2))
