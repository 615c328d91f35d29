"""One pruning step in a process of its own: its time, the most memory that it took, and the masks that it found.

Reads a task as JSON from stdin, writes an outcome as JSON to stdout, and the masks to a safetensors file. The model has
random weights, the images are random, drawn anew at every pass, so that they take no memory.
"""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ovit_deploy import checkpoint, models
from ovit_deploy.bench import memory_use
from ovit_deploy.bench.plain_pruner import PlainOViT
from ovit_deploy.bench.random_weights import sparse_layers
from ovit_deploy.errors import OvitError, PruningError
from ovit_deploy.models import Choice, ModelSpec
from ovit_deploy.pruning import Calibration, Method, OViT
from ovit_deploy.pruning.allocation import Rule
from ovit_deploy.pruning.gradients import sample_gradients
from ovit_deploy.selectors import SelectorError, match

Form = Literal["oViT", "plain"]


@dataclass(frozen=True)
class Task:
    """What to prune, and how.

    Args:
        form: our pruner, or the plain form.
        model: timm's name.
        model_kwargs: what timm is told besides.
        layers: ``all`` prunable layers, or those whose weights' names match this regular expression.
        num_grads: m.
        block_size: B.
        damping: added to the diagonal of the Fisher matrices.
        allocation: how removals are spread over blocks; the plain form knows ``cumulative`` only.
        sparsity: of the layers.
        batch_size: images that go through the model together; one in the plain form.
        memory_budget: bytes, of our pruner.
        spill: folder for what that does not hold; None takes it twice.
        threads: of torch.
        seed: of weights and images.
    """

    form: Form
    model: str
    model_kwargs: dict[str, Any]
    layers: str
    num_grads: int
    block_size: int
    damping: float
    allocation: Rule
    sparsity: float
    batch_size: int
    memory_budget: int | None
    spill: str | None
    threads: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What it took.

    Args:
        seconds: wall time of the pruning step.
        cpu_s: processor time of it, over all threads.
        peak_bytes: most resident memory, over that of the process with the model built.
        activation_bytes: how much of it one batch's gradients take (0 for the plain form, where it is not measured).
        num_layers: layers pruned.
        num_weights: weights in them.
        predicted_loss: predicted increase of the loss.
        passes: passes over the images.
    """

    seconds: float
    cpu_s: float
    peak_bytes: int
    activation_bytes: int
    num_layers: int
    num_weights: int
    predicted_loss: float
    passes: int


def run(task: Task, masks: Path) -> Outcome:
    """Carry out a task in a process of its own, which leaves its masks in a file.

    Raises:
        PruningError: it failed; with its last words.
    """
    request = json.dumps({"task": dataclasses.asdict(task), "masks": str(masks)})
    done = subprocess.run(
        [sys.executable, "-m", "ovit_deploy.bench.pruning_child"],
        input=request,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise PruningError(f"the {task.form} form failed: {last}", "if memory ran out, choose fewer layers")
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Read a task, carry it out, write the outcome."""
    request = json.load(sys.stdin)
    try:
        outcome = carry_out(Task(**request["task"]), Path(request["masks"]))
    except OvitError as error:
        sys.exit(error.message)
    print(json.dumps(dataclasses.asdict(outcome)))


def carry_out(task: Task, masks_file: Path) -> Outcome:
    """Prune here and now."""
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    model = models.build(Choice(ModelSpec(task.model, task.model_kwargs)))
    masks = {name: torch.ones_like(model.get_parameter(name), dtype=torch.bool) for name in targets(model, task.layers)}
    calibration = random_calibration(model, task)
    warm_up(task)
    baseline = memory_use.start_counting()
    activations = activation_bytes(model, list(masks), calibration) if task.form == "oViT" else 0
    memory_use.start_counting()
    start, cpu_start = time.perf_counter(), time.process_time()
    pruned = method_of(task).prune(model, masks, sparsity=task.sparsity, calibration=calibration)
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
    peak = memory_use.peak() - baseline
    checkpoint.save_tensors(masks_file, {name: mask.to(torch.uint8) for name, mask in pruned.masks.items()})
    return Outcome(
        seconds=seconds,
        cpu_s=cpu_s,
        peak_bytes=peak,
        activation_bytes=activations,
        num_layers=len(masks),
        num_weights=sum(mask.numel() for mask in masks.values()),
        predicted_loss=pruned.predicted_loss or 0.0,
        passes=pruned.details.get("passes", 1),
    )


def targets(model: nn.Module, layers: str) -> list[str]:
    """Weights to prune.

    Raises:
        PruningError: no such layer.
    """
    weights = {f"{name}.weight": tuple(layer.weight.shape) for name, layer in sparse_layers(model)}  # type: ignore[union-attr]
    try:
        return list(weights) if layers == "all" else match([f"re:{layers}"], weights)  # type: ignore[arg-type]
    except SelectorError as error:
        raise PruningError(f"layers: {error}", "give all, or a pattern that matches names of weights") from None


def random_calibration(model: nn.Module, task: Task) -> Calibration:
    """Normal images and uniform labels, the same at every pass."""
    import timm

    shape = timm.data.resolve_model_data_config(model)["input_size"]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        draw = torch.Generator().manual_seed(task.seed)
        for start in range(0, task.num_grads, task.batch_size):
            count = min(task.batch_size, task.num_grads - start)
            images = torch.randn(count, *shape, generator=draw)
            yield images, torch.randint(0, model.num_classes, (count,), generator=draw)  # type: ignore[arg-type]

    return Calibration(batches, task.num_grads)


def method_of(task: Task) -> Method:
    """The form as a pruning method."""
    if task.form == "plain":
        return PlainOViT(task.block_size, task.num_grads, task.damping)
    return OViT(
        block_size=task.block_size,
        num_grads=task.num_grads,
        damping=task.damping,
        allocation=task.allocation,
        memory_budget=task.memory_budget,
        spill=Path(task.spill) if task.spill else None,
    )


def warm_up(task: Task) -> None:
    """Prune a model of a few weights: compiles the kernels, and loads what else is loaded on first use."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8))
    images, labels = torch.randn(4, 3, 2, 2), torch.arange(4)
    small = dataclasses.replace(task, block_size=12, num_grads=4, memory_budget=None, damping=1.0)
    masks = {"1.weight": torch.ones(8, 12, dtype=torch.bool)}
    calibration = Calibration(lambda: [(images, labels)], 4)
    method_of(small).prune(model, masks, sparsity=task.sparsity, calibration=calibration)


def activation_bytes(model: nn.Module, names: list[str], calibration: Calibration) -> int:
    """What the forward and backward of one batch take at most, no gradient being formed."""
    before = memory_use.start_counting()
    images, labels = next(iter(calibration.batches()))
    sample_gradients(model, names, images, labels, consume=lambda name, gradients: None)
    return memory_use.peak() - before


if __name__ == "__main__":
    main()
