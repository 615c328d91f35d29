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
from ovit_deploy import device as devices
from ovit_deploy.checkpoint import RUNS, ModelSpec
from ovit_deploy.data import Chance, ImageData, Preprocessing, calibration_batches, eval_loader, seed_all, train_loader
from ovit_deploy.data.quarantine import Quarantine, WholeImages
from ovit_deploy.finetune import generations, loop, masks
from ovit_deploy.finetune.actions import State
from ovit_deploy.finetune.distributed import budget_of, clock, device_of, shared_run
from ovit_deploy.finetune.drop_path import set_drop_path
from ovit_deploy.finetune.evaluate import Evaluation, evaluate
from ovit_deploy.finetune.fingerprint import Start, versions
from ovit_deploy.finetune.keeping import Asked, Journal, Keeper, going_on, noting_signals
from ovit_deploy.finetune.losses import check_distillable
from ovit_deploy.finetune.optimizer import optimizer_for
from ovit_deploy.finetune.tracking import TrackerName, tracking
from ovit_deploy.finetune.tree import Tree
from ovit_deploy.models import Choice
from ovit_deploy.pruning import Calibration, Method, Ranks
from ovit_deploy.pruning.batch_norm import NUM_IMAGES
from ovit_deploy.pruning.shelf import NOWHERE, Shelf
from ovit_deploy.recipe import Recipe, Timeline, timeline
from ovit_deploy.recipe.pruners import GradientPruningModifier
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.recipe.timeline import Action, Distill, Prune
from ovit_deploy.structure import merging_of, read_structure
from ovit_deploy.working_folder import RESUME

MOST_AT_ONCE = 64  # calibration images


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
    device: torch.device | None = None,
    num_workers: int = 0,
    track: TrackerName | None = None,
) -> Finished:
    """Carry out ``recipe`` and leave the result in ``runs/<name>``.

    In the processes of torch.distributed's default group, if there is one: all call it alike, the first one writes.

    Args:
        recipe: what to do when.
        choice: the model and where its weights come from; with weights it is measured before training, too.
        data: images to train and to test on. The test images are looked at only before and after.
        name: of the run; by default the recipe's name and the time.
        runs: the folder of all runs.
        memory_budget: bytes that pruning may use, in each process; by default half of what is free.
        watchers: who is told how it goes.
        methods: what prunes, by the place of a modifier, instead of what it stands for; such a run cannot be resumed.
        resume: go on with the run ``name`` that was cut off.
        device: where the model computes, by default what `device_of` says.
        num_workers: processes that prepare images, beside this one; the weights do not depend on it.
        track: who is told what metrics.jsonl records, beside that file.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM came; the run is saved.
        RankError: another process of the run has ended.
        OvitError: nothing is left behind then, but checkpoints of what was done.
    """
    watchers, ranks = watchers or Watchers(), Ranks.of_process_group()
    seed_all(Chance.START, recipe.training.seed)
    quarantine = Quarantine(len(data.train), recipe.training.max_damaged_images)  # type: ignore[arg-type]
    data = replace(data, train=WholeImages(data.train, quarantine))

    def watch(done: loop.Progress) -> None:
        quarantine.tell(watchers.report)
        watchers.step(done)

    choice = models.completed(choice, classes=data.classes, channels=data.channels)
    device = device or device_of(None)
    model = models.build(choice).to(device)
    ranks.take_first(model.state_dict().values())
    plan = timeline(recipe)
    targets = resolve(recipe, {name: tuple(p.shape) for name, p in model.named_parameters()}, choice.spec.name)
    teacher = dense_teacher(model, plan)
    if recipe.training.augmentation.drop_path:
        set_drop_path(model, recipe.training.augmentation.drop_path)
    preprocessing = Preprocessing.of(model)
    feeding = {"rank": ranks.rank, "num_ranks": ranks.size, "num_workers": num_workers}
    loader = train_loader(data.train, preprocessing, recipe.training, **feeding)
    test = eval_loader(data.test, preprocessing, **feeding)
    name, budget = name or _dated(recipe, ranks), budget_of(memory_budget, ranks, device)
    noting = noting_signals(once=ranks.size == 1) if not methods else contextlib.nullcontext(Asked())
    command = _command(recipe, name, ranks, track)
    about = {"recipe": recipe.name, "model": choice.spec.name, "data": data.name, "seed": recipe.training.seed}
    with (
        noting as asked,
        going_on(working_folder.partial_folder(name, runs), command),
        shared_run(ranks, name, runs, resume=resume) as folder,
        tracking(track if ranks.is_first else None, folder, name, about) as tracker,
    ):
        watchers.report(
            f"{choice.spec.name} on {data.name}: {len(loader)} steps an epoch, {plan.num_epochs:g} epochs, "
            f"on {devices.describe(device)}" + (f" in {ranks.size} processes" if ranks.size > 1 else "")
        )
        quarantine.keep_in(folder)
        start = Start.of(recipe, choice, data, model, memory_budget, num_ranks=ranks.size)
        kept, noted = folder / RESUME, folder if ranks.is_first else None
        with ranks.in_turn():
            saved = _begun(start, kept, watchers, resume=resume, writes=ranks.is_first)
        if saved is not None:
            journal = Journal.from_tree(noted, saved["journal"], saved["training"]["step"], tracker)
            watchers.report(f"going on at step {journal.resumed_at[-1]}")
        else:
            dense = evaluate(model, test, ranks) if choice.weights or choice.pretrained else None
            journal = Journal(noted, dense, tracker=tracker)
        calibration = CalibrationImages(data, preprocessing, recipe.training.seed, num_workers, ranks)
        state = State(
            model=model,
            optimizer=optimizer_for(model, recipe.training),
            targets=targets,
            calibration=calibration,
            memory_budget=budget,
            report=watchers.report,
            teacher=teacher,
            scratch=kept,
            methods=dict(methods or {}),
            compat=recipe.compat,
            ranks=ranks,
            shelf=Shelf(kept / "pruning") if not methods else NOWHERE,
            structure=read_structure(choice.spec.structure) if choice.spec.structure else None,
            batch_norm_images=calibration(min(NUM_IMAGES, len(data.train))),  # type: ignore[arg-type]
        )
        loop.train(
            state,
            loader,
            plan,
            recipe.training,
            teacher=teacher,
            watch=watch,
            record=journal.record,
            save=Keeper(kept, asked, journal, command, ranks) if not methods else lambda *_: None,
            start=saved["training"] if saved else None,
        )
        facts = _facts(recipe, choice, data, journal.dense, evaluate(model, test, ranks), state)
        facts |= {"seconds": journal.seconds, "preprocessing": preprocessing.as_dict()}
        facts |= {"resumed_at_steps": journal.resumed_at} if journal.resumed_at else {}
        quarantine.tell(watchers.report)
        facts |= {"damaged_images": len(quarantine.found)} if quarantine.found else {}
        if ranks.is_first:
            spec = replace(choice.spec, quantization=facts["quantization"], structure=facts["structure"])
            spec = replace(spec, token_merging=facts["token_merging"])
            _save(folder, state, spec, recipe, facts)
    return Finished(runs / name, facts)


def _begun(start: Start, kept: Path, watchers: Watchers, *, resume: bool, writes: bool) -> Tree | None:
    """Keep what the run is of; of one that is resumed compare it, and give its newest checkpoint."""
    if resume:
        Start.read(kept).check(start, watchers.report)
        return generations.newest(kept, watchers.report)
    if writes:
        start.write(kept)
    return None


def _dated(recipe: Recipe, ranks: Ranks) -> str:
    """A run's name by the recipe and the time."""
    return f"{recipe.name}-{datetime.fromtimestamp(clock(ranks)).astimezone():%Y%m%d-%H%M%S}"


def _command(recipe: Recipe, name: str, ranks: Ranks, track: TrackerName | None) -> str:
    """How a user goes on with a run."""
    program = "ovit-deploy" if ranks.size == 1 else f"torchrun --nproc-per-node {ranks.size} -m ovit_deploy"
    tracked = f" --track {track}" if track else ""
    return f"{program} {'prune' if recipe.prunes else 'train'} --resume {name}{tracked}"


@dataclass(frozen=True)
class CalibrationImages:
    """A `Calibrate`: training images by a seed and a draw."""

    data: ImageData
    preprocessing: Preprocessing
    seed: int
    num_workers: int
    ranks: Ranks

    def __call__(self, num_images: int, draw: int = 0, /) -> Calibration:
        """The images."""
        batches = calibration_batches(
            self.data.train,
            self.preprocessing,
            num_images,
            seed=self.seed + draw,
            batch_size=min(MOST_AT_ONCE, -(-num_images // self.ranks.size)),  # a part for each rank
            num_workers=self.num_workers,
        )
        return Calibration(batches, num_images, ranks=self.ranks)


def dense_teacher(model: nn.Module, plan: Timeline) -> nn.Module | None:
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
        "recipe_args": recipe.overrides,
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
        "structure": state.structure.as_dict() if state.structure else None,
        "token_merging": merging_of(state.model),
        "versions": versions(),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": psutil.cpu_count(logical=False),
            "device": devices.describe(next(state.model.parameters()).device),
            "processes": state.ranks.size,
        },
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
