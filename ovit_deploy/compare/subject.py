"""What a comparison or a sensitivity looks at: a model, its targets, calibration and test images."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ovit_deploy import device as devices
from ovit_deploy import families, models
from ovit_deploy.data import Chance, ImageData, Preprocessing, calibration_batches, eval_loader, seed_all
from ovit_deploy.errors import RecipeError
from ovit_deploy.finetune import masks as masking
from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.models import Choice
from ovit_deploy.pruning import Calibration
from ovit_deploy.selectors import SelectorError, match


@dataclass(frozen=True)
class Subject:
    """A dense model and all that pruning and measuring it takes.

    Args:
        model: In eval mode; nobody changes it.
        masks: Its targets, all kept.
        calibration: Training images without augmentation.
        loss: Of the model on the calibration images.
        test: Test images.
        about: What it is, ready for JSON, without paths.
    """

    model: nn.Module
    masks: dict[str, Tensor]
    calibration: Calibration
    loss: float
    test: DataLoader[Any]
    about: dict[str, Any]


def subject_of(
    choice: Choice,
    data: ImageData,
    *,
    targets: Sequence[str],
    num_images: int,
    seed: int,
    device: torch.device | None = None,
) -> Subject:
    """Build the model and choose the images.

    Args:
        choice: The model and its weights.
        data: Calibration images come from its training images.
        targets: Selectors of the weights to prune, as ``params`` of a recipe; none for those of the model's family.
        num_images: Calibration images.
        seed: Of their choice.
        device: Where the model computes, by default what `device.choose` says.

    Raises:
        OvitError: The model cannot be built, a selector matches nothing, or there are too few images.
    """
    seed_all(Chance.START, seed)
    choice = models.completed(choice, classes=data.classes, channels=data.channels)
    model = models.build(choice).to(device or devices.choose(None))
    parameters = dict(model.named_parameters())
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    try:
        targets = targets or families.targets_of(choice.spec.name, shapes)
        names = match(targets, shapes)
    except SelectorError as error:
        raise RecipeError(f"--params: {error}", "name parameters of this model") from error
    masks, preprocessing = masking.full(model, names), Preprocessing.of(model)
    calibration = Calibration(calibration_batches(data.train, preprocessing, num_images, seed=seed), num_images)
    about = {
        "model": choice.spec.name,
        "model_kwargs": choice.spec.kwargs,
        "weights_sha256": digest(model),
        "parameters": sum(parameter.numel() for parameter in parameters.values()),
        "targets": list(targets),
        "prunable": sum(mask.numel() for mask in masks.values()),
        "data": data.name,
        "train_images": len(data.train),  # type: ignore[arg-type]
        "test_images": len(data.test),  # type: ignore[arg-type]
        "calibration_images": num_images,
        "seed": seed,
    }
    loss = evaluate(model, calibration.batches()).loss
    return Subject(model, masks, calibration, loss, eval_loader(data.test, preprocessing), about)


def digest(model: nn.Module) -> str:
    """SHA-256 of all weights, so that a result says what it is of without a path."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
