"""The stages of a qualification, in order. A stage that fails is told in the row; later ones that need it are left out.

describe    parameters, family, targets, input size
prune       one-shot oViT and a few steps of finetuning, as recipes/qualification.yaml says
export      FP32 and INT8, each proven in ONNX Runtime
compare     the logits of the other engines with PyTorch's
time        the speed-up over the dense twin, where it is asked
"""

import math
import resource
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovit_deploy import catalog, checkpoint, families, hub, models
from ovit_deploy.checkpoint import ModelSpec, Run
from ovit_deploy.data import ImageData, Preprocessing, calibration_batches, sample_images
from ovit_deploy.engines.environments import cpu_flags
from ovit_deploy.errors import EngineError, ModelError, OvitError
from ovit_deploy.export import deployment
from ovit_deploy.export.card import Facts
from ovit_deploy.export.deployment import ExportReport
from ovit_deploy.export.post_training import quantized
from ovit_deploy.export.profile import load_profile
from ovit_deploy.finetune.run import run
from ovit_deploy.models import Choice
from ovit_deploy.pruning.batch_norm import recalibrate
from ovit_deploy.qualify import limits, parity
from ovit_deploy.qualify.images import NUM_CLASSES, made_up
from ovit_deploy.qualify.task import PRECISIONS, Precision, Row, Settings
from ovit_deploy.recipe import Recipe, load_recipe
from ovit_deploy.recipe.pruners import OViTPruningModifier
from ovit_deploy.recipe.quantization import Quantization, Scheme, TensorScheme
from ovit_deploy.recipe.write import write
from ovit_deploy.selectors import SelectorError, match


@dataclass(frozen=True)
class Subject:
    """A model with what its stages share."""

    choice: Choice
    targets: tuple[str, ...]
    data: ImageData
    settings: Settings
    folder: Path


def qualify(model: str, settings: Settings, folder: Path, kwargs: dict[str, Any] | None = None) -> Row:
    """Take ``model`` through all stages.

    Args:
        model: timm's name.
        settings: What is asked of it.
        folder: Everything is written there.
        kwargs: What timm is told besides, such as smaller widths.
    """
    started, row = time.perf_counter(), Row(model)
    with telling(row, "build"):
        subject = describe(row, settings, folder, kwargs or {})
        with telling(row, "prune"):
            pruned = prune(row, subject)
            for precision in PRECISIONS:
                with telling(row, f"export {precision}"):
                    deploy(row, subject, pruned, precision)
    row.seconds = time.perf_counter() - started
    row.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return row


@contextmanager
def telling(row: Row, stage: str) -> Iterator[None]:
    """A user's error in the block becomes a line of the row."""
    try:
        yield
    except OvitError as error:
        row.failures[stage] = error.message
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:  # timm's and torch's, in a model's code
        lines = str(error).strip().splitlines() or [""]
        row.failures[stage] = f"{type(error).__name__}: {lines[0]}"


def describe(row: Row, settings: Settings, folder: Path, kwargs: dict[str, Any]) -> Subject:
    """Fill in what is known without training."""
    choice = choose(row.model, settings.img_size, kwargs)
    network = models.outline(choice.spec)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    family = families.family_of(row.model)
    row.family = family.name if family else None
    row.module = models.module_of(row.model)
    row.weights = "timm" if choice.pretrained else "chance"
    row.input_size = Preprocessing.of(network).input_size
    row.parameters = sum(map(math.prod, shapes.values()))
    try:
        targets = families.targets_of(row.model, shapes)
        row.prunable = sum(math.prod(shapes[name]) for name in match(targets, shapes))
    except SelectorError as error:
        raise ModelError(f"{row.model}: {error}", "mend the targets of its family") from error
    num_train = max(settings.num_grads, 8 * settings.num_steps)
    data = made_up(num_train=num_train, num_test=settings.num_images, size=row.input_size[1], seed=settings.seed)
    return Subject(choice, targets, data, settings, folder)


def choose(model: str, img_size: int | None, kwargs: dict[str, Any]) -> Choice:
    """The model with ten classes, at ``img_size`` where it takes that, with pretrained weights where they are here."""
    pretrained = not kwargs and hub.cached(model) is not None
    spec = ModelSpec(model, {"num_classes": NUM_CLASSES, **kwargs})
    models.outline(spec)  # a model that cannot be built at all is told here
    sized = replace(spec, kwargs={"img_size": img_size, **spec.kwargs})
    return Choice(sized if img_size and _takes(sized, img_size) else spec, pretrained=pretrained)


def _takes(spec: ModelSpec, img_size: int) -> bool:
    """Whether the network can be built for images of that size, and computes something of them."""
    try:
        models.outline(spec).eval()(torch.empty(1, 3, img_size, img_size, device="meta"))
    except (ModelError, RuntimeError, AssertionError, ValueError):  # timm's ways to say no
        return False
    return True


def prune(row: Row, subject: Subject) -> Run:
    """Prune, finetune, and keep the run."""
    recipe = recipe_for(subject.targets, subject.settings, len(subject.data.train))  # type: ignore[arg-type]
    finished = run(recipe, subject.choice, subject.data, name="pruned", runs=subject.folder)
    row.sparsity = finished.facts["sparsity"]["prunable"]
    return checkpoint.load_run(finished.folder)


def recipe_for(targets: tuple[str, ...], settings: Settings, num_train: int) -> Recipe:
    """The shipped recipe with the model's own targets."""
    values = {
        "sparsity": str(settings.sparsity),
        "num_grads": str(settings.num_grads),
        "batch_size": str(num_train // settings.num_steps),
    }
    shipped = load_recipe(catalog.find("recipes", "qualification"), values)
    modifiers = tuple(
        modifier.model_copy(update={"params": targets}) if isinstance(modifier, OViTPruningModifier) else modifier
        for modifier in shipped.modifiers
    )
    recipe = shipped.model_copy(update={"modifiers": modifiers, "overrides": {}})
    return recipe.model_copy(update={"text": write(recipe)})


def deploy(row: Row, subject: Subject, pruned: Run, precision: Precision) -> None:
    """One file for each profile that an engine wants, and each engine's logits beside PyTorch's."""
    model = models.build(Choice(pruned.spec, weights=pruned.weights))
    preprocessing = Preprocessing.of(model)
    recalibrate(model, _training_batches(subject.data, preprocessing))  # running means are slower than these few steps
    images, _ = sample_images(subject.data.test, preprocessing, subject.settings.num_images)
    if precision == "int8":
        row.weight_bits = weight_bits()
        model = rounded(model, subject.data, preprocessing, images, row.weight_bits)
    for profile, engines in parity.profiles_of(subject.settings.engines, precision).items():
        with telling(row, f"export {profile}"):
            report = export(model, images, pruned, profile, subject.folder / profile)
            for engine in engines:
                with telling(row, f"{engine} {precision}"):
                    answer(row, engine, precision, report, images)
            if subject.settings.timing:
                with telling(row, f"time {precision}"):
                    gains = parity.speed_ups(engines, report, subject.folder / f"{profile}_timing")
                    row.speed_up |= {f"{engine} {precision}": gain for engine, gain in gains.items()}


def answer(row: Row, engine: str, precision: Precision, report: ExportReport, images: Tensor) -> None:
    """An engine's logits beside PyTorch's, or its refusal where that is known."""
    where = f"{engine} {precision}"
    try:
        found = parity.with_pytorch(engine, precision, report, images)
    except EngineError as error:
        if (limit := limits.known(engine, error.message)) is None:
            raise
        row.refused[where] = limit
        return
    row.parity[where] = found.parity
    row.slow |= {where: found.slow} if found.slow else {}


def rounded(model: nn.Module, data: ImageData, preprocessing: Preprocessing, images: Tensor, bits: int) -> nn.Module:
    """The model in INT8, its weights in so many bits, its ranges from training images."""
    batches = list(_training_batches(data, preprocessing))
    weights = TensorScheme(num_bits=bits, symmetric=True, strategy="channel", observer="min_max")
    return quantized(model, Quantization(scheme=Scheme(weights=weights)), batches, images)[0]


def _training_batches(data: ImageData, preprocessing: Preprocessing) -> Iterable[tuple[Tensor, Tensor]]:
    """All training images."""
    return calibration_batches(data.train, preprocessing, len(data.train), seed=0)()  # type: ignore[arg-type]


def weight_bits() -> int:
    """8, or 7 on a CPU without VNNI: sums of two products saturate at 16 bits there, in OpenVINO among others."""
    return 8 if {"avx512_vnni", "avx_vnni"} & cpu_flags() else 7


def export(model: nn.Module, images: Tensor, pruned: Run, profile: str, destination: Path) -> ExportReport:
    """The file of a profile, proven in ONNX Runtime."""
    return deployment.export(
        model,
        images=images,
        masks=pruned.masks(),
        profile=load_profile(profile).model_copy(update=parity.BOUNDS),
        facts=Facts(pruned.spec.name, pruned.spec.kwargs, pruned.spec.classes),
        recipe_text=pruned.recipe_text,
        destination=destination,
    )
