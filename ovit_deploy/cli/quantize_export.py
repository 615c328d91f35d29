"""``ovit-deploy export --quantize``: a float model rounded on its way to ONNX, and what that costs, told."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ovit_deploy.cli import render
from ovit_deploy.data import ImageData, Preprocessing, calibration_batches
from ovit_deploy.export import mixed_precision
from ovit_deploy.export.post_training import NUM_CALIBRATION_IMAGES
from ovit_deploy.export.post_training import quantized as quantized_copy
from ovit_deploy.quantization import smooth
from ovit_deploy.recipe.quantization import Quantization

NUM_HELD_OUT = 1024
Batches = Sequence[tuple[Tensor, Tensor]]


def quantized(
    model: nn.Module,
    quantization: Quantization,
    sets: ImageData,
    images: Tensor,
    *,
    smooth_by: float | None,
    max_drop: float | None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The model after post-training quantization, and what model.json says of it.

    Args:
        model: trained; it is not changed.
        quantization: the profile's.
        sets: ranges come from its training images.
        images: test images to tell on how near the result stays; they decide nothing.
        smooth_by: strength of smoothing; None for none.
        max_drop: points of top-1 that may be lost; None leaves it to luck.
    """
    calibration, held_out = _training_images(sets, Preprocessing.of(model), with_held_out=max_drop is not None)
    rounded, told = model, {}
    if smooth_by is not None:
        rounded = copy.deepcopy(model)
        count = smooth(rounded, calibration, smooth_by)
        render.note(f"{count} LayerNorms smoothed with strength {smooth_by:g}")
        told |= {"smooth": smooth_by}
    if max_drop is not None:
        quantization, mixed = mixed_precision.choose(
            rounded, quantization, calibration, held_out, max_drop=max_drop, report=render.note
        )
        render.note(_in_words(mixed))
        told |= {"mixed_precision": mixed.as_dict()}
    result, near = quantized_copy(rounded, quantization, calibration, images)
    render.note(
        f"{near.num_layers} layers quantized with {near.num_calibration_images} training images: same top-1 as the "
        f"float model for {near.top1_agreement:.1%} of {len(images)} test images, cosine {near.cosine:.4f}"
    )
    return result, near.as_dict() | told | {"quantization": quantization.model_dump(mode="json")}


def _training_images(sets: ImageData, preprocessing: Preprocessing, *, with_held_out: bool) -> tuple[Batches, Batches]:
    """Batches to take ranges from, and others to measure accuracy on: half of the images where there are few."""
    total, size = len(sets.train), 64  # pyrefly: ignore[bad-argument-type]
    num_calibration = min(NUM_CALIBRATION_IMAGES, total // 2 if with_held_out else total)
    num_images = min(num_calibration + NUM_HELD_OUT, total) if with_held_out else num_calibration
    drawn = list(calibration_batches(sets.train, preprocessing, num_images, seed=0, batch_size=size)())
    images, labels = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    batches = [
        list(zip(images[part].split(size), labels[part].split(size), strict=True))
        for part in (slice(num_calibration), slice(num_calibration, None))
    ]
    return batches[0], batches[1] if with_held_out else []


def _in_words(mixed: mixed_precision.MixedPrecision) -> str:
    kept = f"in float stay {', '.join(mixed.ignore)}" if mixed.ignore else "all layers can be quantized"
    return f"{kept}: {mixed.drop:.2f} points of top-1 lost on {mixed.num_images} held-out training images"
