"""Which layers must stay in floating point so that a quantized model keeps a stated accuracy.

Every layer is quantized alone first: how far the model's answers move, as mean KL divergence (nats), is its
sensitivity. The most sensitive layers are then left out of the quantization, as few as keep the drop of top-1 within
the limit; their number is found by bisection, each candidate quantized and measured as a whole.

All of it looks at training images only, at none that ranges are taken from to measure accuracy on.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovit_deploy.errors import ExportError
from ovit_deploy.export.post_training import quantize
from ovit_deploy.recipe.quantization import Quantization

SENSITIVITY_IMAGES = 256
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class MixedPrecision:
    """What stays in floating point, and why.

    Attributes:
        max_drop: points of top-1 that may be lost.
        drop: points of top-1 that are lost on the held-out training images.
        num_images: held-out training images.
        ignore: what stays in floating point, the most sensitive first; the value of a recipe's key of that name.
        sensitivity: mean KL divergence by name, the most sensitive first; empty where nothing had to stay.
    """

    max_drop: float
    drop: float
    num_images: int
    ignore: tuple[str, ...]
    sensitivity: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@torch.inference_mode()
def choose(
    model: nn.Module,
    quantization: Quantization,
    calibration: Sequence[Batch],
    held_out: Sequence[Batch],
    *,
    max_drop: float,
    report: Callable[[str], None] = lambda text: None,
) -> tuple[Quantization, MixedPrecision]:
    """``quantization`` with the layers ignored that must be, and what that is founded on.

    Args:
        model: trained, in evaluation mode; it is not changed.
        quantization: wanted for all layers.
        calibration: training images for ranges.
        held_out: other training images, with labels, for accuracy.
        max_drop: points of top-1 that may be lost against ``model``.
        report: told what is being tried.

    Raises:
        ExportError: even the last layer alone loses more.
    """
    trial = _Trial(model, calibration, held_out)
    everything, names = quantize(model, quantization, calibration)
    drop = trial.drop(everything)
    if drop <= max_drop:
        return quantization, MixedPrecision(max_drop, drop, trial.num_images, (), {})
    report(f"all {len(names)} layers quantized lose {drop:.2f} points of top-1: looking for the sensitive ones")
    sensitivity = {name: trial.divergence(_only(quantization, name)) for name in names}
    ranked = sorted(names, key=lambda name: -sensitivity[name])

    def drop_without(count: int) -> float:
        candidate, _ = quantize(model, _without(quantization, ranked[:count]), calibration)
        found = trial.drop(candidate)
        report(f"{count} of {len(names)} layers left in float: {found:.2f} points lost")
        return found

    count, drop = _fewest(drop_without, len(ranked), max_drop)
    ordered = {name: sensitivity[name] for name in ranked}
    mixed = MixedPrecision(max_drop, drop, trial.num_images, tuple(ranked[:count]), ordered)
    return _without(quantization, mixed.ignore), mixed


def _fewest(drop_without: Callable[[int], float], total: int, max_drop: float) -> tuple[int, float]:
    """The least number of layers to leave out that bisection finds, and the drop then."""
    too_few, enough, least = 0, total, None
    while enough - too_few > 1:
        count = (too_few + enough) // 2
        drop = drop_without(count)
        if drop <= max_drop:
            enough, least = count, drop
        else:
            too_few = count
    if least is None:
        raise ExportError(
            f"no layer can be quantized within {max_drop:g} points of top-1", "raise --max-drop, or train with a recipe"
        )
    return enough, least


class _Trial:
    """The float model's answers, and what quantized ones are compared with them."""

    def __init__(self, model: nn.Module, calibration: Sequence[Batch], held_out: Sequence[Batch]) -> None:
        self.model, self.few = model, calibration[:2]
        self.images, self.labels = (torch.cat(parts) for parts in zip(*held_out, strict=True))
        self.num_images = len(self.labels)
        self.logits = self._answers(model)
        self.correct = int((self.logits.argmax(1) == self.labels).sum())

    def drop(self, quantized: nn.Module) -> float:
        """Points of top-1 lost."""
        correct = int((self._answers(quantized).argmax(1) == self.labels).sum())
        return 100 * (self.correct - correct) / self.num_images

    def divergence(self, quantization: Quantization) -> float:
        """Mean KL divergence (nats) of a quantized model's answers from the float model's, on some of the images."""
        answers = self._answers(quantize(self.model, quantization, self.few)[0], SENSITIVITY_IMAGES)
        wanted = self.logits[: len(answers)].log_softmax(1)
        return float(F.kl_div(answers.log_softmax(1), wanted, reduction="batchmean", log_target=True))

    def _answers(self, model: nn.Module, most: int | None = None) -> Tensor:
        return torch.cat([model(images) for images in self.images[:most].split(64)])


def _only(quantization: Quantization, name: str) -> Quantization:
    return quantization.model_copy(update={"submodules": (name,)})


def _without(quantization: Quantization, names: Sequence[str]) -> Quantization:
    return quantization.model_copy(update={"ignore": (*quantization.ignore, *names)})
