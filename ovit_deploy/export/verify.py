"""Is the file the model? Its format, its zeros and its answers on real images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnx.shape_inference import InferenceError
from torch import Tensor, nn

from ovit_deploy.errors import ExportError
from ovit_deploy.export.profile import Profile
from ovit_deploy.export.to_onnx import INPUT, OUTPUT
from ovit_deploy.export.zeros import count_zeros

BATCH = 32
NUM_UNOPTIMIZED = 32  # images for the slow run without graph optimisation


@dataclass(frozen=True)
class Verification:
    """What was compared, and how near the file came to the model.

    Attributes:
        num_images: that went through both.
        max_abs_difference: of a logit, over all images.
        top1_agreement: fraction of the images for which both name the same class.
        logits: the model's own, N x classes.
    """

    num_images: int
    max_abs_difference: float
    top1_agreement: float
    logits: Tensor


def verify(
    path: Path, model: nn.Module, images: Tensor, *, masks: Mapping[str, Tensor], profile: Profile
) -> Verification:
    """The comparison of the file with the model it was made from.

    The file is checked against the ONNX standard with full shape inference; every pruned weight must have in the
    file exactly the zeros it has in PyTorch; ONNX Runtime, with and without its graph optimisation, must give
    the model's logits up to ``profile.tolerance`` and name the same class for every image.

    Args:
        path: the ONNX file.
        model: in evaluation mode, on the CPU.
        images: N x C x H x W, preprocessed.
        masks: boolean, by weight name, True = kept.
        profile: that the file was made with.

    Raises:
        ExportError: the file is not the model; says which layer, or by how much.
    """
    check_format(path)
    check_zeros(path, model, masks)
    if profile.batch != "dynamic":
        images = images[: len(images) // profile.batch * profile.batch]
    if not len(images):
        raise ExportError("no images to verify with", "give at least one batch: raise --num-images")
    size = BATCH if profile.batch == "dynamic" else profile.batch
    logits = _logits(model, images, size)
    check_answers(path, images[:NUM_UNOPTIMIZED], logits[:NUM_UNOPTIMIZED], size, profile, optimized=False)
    difference = check_answers(path, images, logits, size, profile, optimized=True)
    return Verification(len(images), difference, 1.0, logits)


def check_format(path: Path) -> None:
    """Refuse a file that breaks the ONNX standard."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(
            f"{path.name} breaks the ONNX standard: {reason}", "check opset and passes of the profile"
        ) from error


def check_zeros(path: Path, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Refuse a file in which a pruned weight has other zeros than in the model, or in the model than in its mask."""
    weights = dict(model.named_parameters())
    found = count_zeros(ir.load(path))
    for name, mask in masks.items():
        if name not in weights or weights[name].shape != mask.shape:
            raise ExportError(f"{name}: the mask fits no weight of the model", "export the run that made the mask")
        if weights[name][~mask].any():
            raise ExportError(
                f"{name}: a pruned weight is not zero in the model", "prune again: its masks were not kept"
            )
        if name not in found:
            raise ExportError(f"{name}: not in {path.name} under this name", "add fold_weights to the profile's passes")
        expected = int((weights[name] == 0).sum())
        if found[name] != expected:
            raise ExportError(
                f"{name}: {expected} zeros in the model, {found[name]} in {path.name}",
                "leave out the pass that fills them",
            )


def check_answers(
    path: Path, images: Tensor, logits: Tensor, batch_size: int, profile: Profile, *, optimized: bool
) -> float:
    """The largest difference of a logit between ONNX Runtime and the model; refuse one beyond the tolerance."""
    answers = _run(path, images, batch_size, optimized=optimized)
    how = f"in ONNX Runtime {'with' if optimized else 'without'} graph optimisation"
    difference = float(np.abs(answers - logits.numpy()).max())
    if not difference <= profile.tolerance:
        raise ExportError(
            f"logits differ by {difference:.2g} {how}, more than {profile.tolerance:g}",
            f"find the pass at fault by leaving them out one by one, or raise tolerance in profile {profile.name}",
        )
    differing = int((answers.argmax(1) != logits.numpy().argmax(1)).sum())
    if differing:
        raise ExportError(
            f"{differing} of {len(images)} images get another class {how}", "lower tolerance to find the pass at fault"
        )
    return difference


@torch.inference_mode()
def _logits(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    return torch.cat([model(batch) for batch in images.split(batch_size)])


def _run(path: Path, images: Tensor, batch_size: int, *, optimized: bool) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception
        reason = str(error).strip().splitlines()[0]
        raise ExportError(
            f"ONNX Runtime refuses {path.name}: {reason}", "check opset and ir_version of the profile"
        ) from error
    batches = [np.asarray(session.run([OUTPUT], {INPUT: batch.numpy()})[0]) for batch in images.split(batch_size)]
    return np.concatenate(batches)
