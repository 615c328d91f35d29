"""INT8 without training: quantizers put into a trained model, their ranges taken from training images."""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ovit_deploy.export.verify import compare
from ovit_deploy.quantization import calibrate, freeze_observers, insert
from ovit_deploy.recipe.quantization import Quantization

NUM_CALIBRATION_IMAGES = 512


@dataclass(frozen=True)
class PostTraining:
    """What was quantized, and how near the result stays to the float model.

    Attributes:
        num_layers: that were quantized.
        num_calibration_images: training images that the ranges come from.
        top1_agreement: fraction of the test images for which both name the same class.
        cosine: of their logits, averaged over the images.
    """

    num_layers: int
    num_calibration_images: int
    top1_agreement: float
    cosine: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@torch.inference_mode()
def quantize(
    model: nn.Module, quantization: Quantization, batches: Sequence[tuple[Tensor, Tensor]]
) -> tuple[nn.Module, list[str]]:
    """A quantized copy of ``model``, and the names of what is quantized in it.

    Args:
        model: trained, in evaluation mode.
        quantization: which layers, and how.
        batches: training images to observe, with labels that are not looked at.

    Raises:
        ModelError: the model is quantized already, or has nothing to quantize.
    """
    result = copy.deepcopy(model)
    names = insert(result, quantization)
    calibrate(result, batches)
    freeze_observers(result)
    return result.eval(), names


@torch.inference_mode()
def quantized(
    model: nn.Module, quantization: Quantization, batches: Sequence[tuple[Tensor, Tensor]], images: Tensor
) -> tuple[nn.Module, PostTraining]:
    """A quantized copy of ``model``, and how near it stays.

    Args:
        model: trained, in evaluation mode.
        quantization: which layers, and how.
        batches: training images to observe, with labels that are not looked at.
        images: test images [N, C, H, W] to compare on; they change nothing.

    Raises:
        ModelError: the model is quantized already, or has nothing to quantize.
    """
    result, names = quantize(model, quantization, batches)
    logits, answers = (torch.cat([one(batch) for batch in images.split(32)]) for one in (model, result))
    near = compare(answers.numpy(), logits)
    return result, PostTraining(
        num_layers=len(names),
        num_calibration_images=sum(len(batch) for batch, _ in batches),
        top1_agreement=near.top1_agreement,
        cosine=near.cosine,
    )
