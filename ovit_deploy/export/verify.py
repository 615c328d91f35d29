"""Is the file the model? Its format, its zeros and its answers on real images."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnx.shape_inference import InferenceError
from torch import Tensor, nn

from ovit_deploy.engines.environments import cpu_flags
from ovit_deploy.errors import ExportError
from ovit_deploy.export.profile import Profile
from ovit_deploy.export.to_onnx import INPUT, OUTPUT
from ovit_deploy.export.zeros import count_zeros

BATCH = 32
NUM_UNOPTIMIZED = 32  # images for the slow run without graph optimisation
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


@dataclass(frozen=True)
class Verification:
    """What was compared, and how near the file came to the model.

    Attributes:
        num_images: that went through both.
        max_abs_difference: of a logit, over all images.
        top1_agreement: fraction of the images for which both name the same class.
        cosine: of their logits, averaged over the images.
        logits: the model's own, N x classes.
    """

    num_images: int
    max_abs_difference: float
    top1_agreement: float
    cosine: float
    logits: Tensor


def verify(
    path: Path, model: nn.Module, images: Tensor, *, masks: Mapping[str, Tensor], profile: Profile
) -> Verification:
    """The comparison of the file with the model it was made from.

    The file is checked against the ONNX standard with full shape inference; every pruned weight must have in the
    file exactly the zeros it has in PyTorch; ONNX Runtime, with and without its graph optimisation, must give
    the model's logits up to ``profile.tolerance`` (as a fraction of the largest, where that is above 1) and name the
    same class for every image. A quantized model rounds at every layer, so a last bit may become a whole step of a
    scale: there, agreement and cosine are what counts, at each level of ONNX Runtime's optimisation; the worst of them
    is returned.

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
    if profile.precision == "int8":
        found = [check_parity(path, images, logits, size, profile, level=level) for level in LEVELS]
        return replace(
            found[-1],
            max_abs_difference=max(one.max_abs_difference for one in found),
            top1_agreement=min(one.top1_agreement for one in found),
            cosine=min(one.cosine for one in found),
        )
    check_answers(path, images[:NUM_UNOPTIMIZED], logits[:NUM_UNOPTIMIZED], size, profile, level=LEVELS[0])
    return check_answers(path, images, logits, size, profile, level=LEVELS[-1])


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
    path: Path, images: Tensor, logits: Tensor, batch_size: int, profile: Profile, *, level: str
) -> Verification:
    """ONNX Runtime beside the model in float32; refuse a logit beyond the tolerance, or another class."""
    answers = _run(path, images, batch_size, level=level)
    how, found = _how(level), compare(answers, logits)
    most = profile.tolerance * max(1.0, float(logits.abs().max()))  # float32 rounds relatively
    if not found.max_abs_difference <= most:
        raise ExportError(
            f"logits differ by {found.max_abs_difference:.2g} {how}, more than {most:.3g}",
            f"find the pass at fault by leaving them out one by one, or raise tolerance in profile {profile.name}",
        )
    differing = int((answers.argmax(1) != logits.numpy().argmax(1)).sum())
    if differing:
        raise ExportError(
            f"{differing} of {len(images)} images get another class {how}", "lower tolerance to find the pass at fault"
        )
    return found


def check_parity(
    path: Path, images: Tensor, logits: Tensor, batch_size: int, profile: Profile, *, level: str
) -> Verification:
    """ONNX Runtime beside the quantized model; refuse less agreement, or cosine, than the profile asks for."""
    found, how = compare(_run(path, images, batch_size, level=level), logits), _how(level)
    told = (
        ("agree on", found.top1_agreement, profile.min_agreement),
        ("have a cosine of", found.cosine, profile.min_cosine),
    )
    for what, value, least in told:
        if not value >= least:
            raise ExportError(
                f"file and model {what} {value:.5f} {how}, {least:g} is asked for",
                f"{_saturation()}freeze observers earlier, keep layers in float, or see profile {profile.name}",
            )
    return found


def _saturation() -> str:
    """Why ONNX Runtime's integer products may be wrong on this CPU; nothing where they are not.

    Without VNNI it adds pairs of products of uint8 and int8 in 16 bits, which saturate at 32,767.
    """
    flags = cpu_flags()
    if not flags or flags & {"avx512_vnni", "avx_vnni"}:
        return ""
    return "ONNX Runtime's products saturate on this CPU, which has no VNNI: take num_bits 7 for weights; or "


def compare(answers: np.ndarray, logits: Tensor) -> Verification:
    """The answers of the file [N, classes] beside the model's logits."""
    given, wanted = answers.astype(np.float64), logits.double().numpy()
    cosines = (given * wanted).sum(1) / np.linalg.norm(given, axis=1) / np.linalg.norm(wanted, axis=1)
    return Verification(
        num_images=len(logits),
        max_abs_difference=float(np.abs(given - wanted).max()),
        top1_agreement=float((given.argmax(1) == wanted.argmax(1)).mean()),
        cosine=float(cosines.mean()),
        logits=logits,
    )


def _how(level: str) -> str:
    return f"in ONNX Runtime at {level}"


@torch.inference_mode()
def _logits(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    return torch.cat([model(batch) for batch in images.split(batch_size)])


def _run(path: Path, images: Tensor, batch_size: int, *, level: str) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.__members__[level]
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception
        reason = str(error).strip().splitlines()[0]
        raise ExportError(
            f"ONNX Runtime refuses {path.name}: {reason}", "check opset and ir_version of the profile"
        ) from error
    batches = [np.asarray(session.run([OUTPUT], {INPUT: batch.numpy()})[0]) for batch in images.split(batch_size)]
    return np.concatenate(batches)
