"""The loss whose gradients make a Fisher matrix: whose labels it takes, and in which precision.

    hard     the data's own labels: the empirical Fisher of the papers
    sampled  labels drawn from the model's softmax: an estimate of the true Fisher matrix, which is the Gauss-Newton
             matrix of the cross-entropy ("Limitations of the Empirical Fisher Approximation for Natural Gradient
             Descent", Kunstner et al., arXiv 1905.12558, equations 2 and 3)
    teacher  the softmax of another model, usually the dense one: soft cross-entropy, whose gradients are those of the
             KL divergence from the teacher

A drawn label belongs to its image: it depends on the seed, the image's number in the stream and the model, and neither
on batches nor on the pass nor on which rank meets the image.

Shape suffixes: N images, C classes.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovit_deploy.errors import NotFiniteError, PruningError

Labels = Literal["hard", "sampled", "teacher"]
Precision = Literal["float32", "bfloat16"]
# A model whose probabilities are within this of its teacher's has next to no gradient.
AGREED = 1e-6


@dataclass(frozen=True)
class Loss:
    """Cross-entropy with one of three kinds of labels.

    Args:
        labels: ``hard``, ``sampled`` or ``teacher``.
        precision: Of the products in forward and backward (autocast); the loss itself and all that is made of gradients
            stays as precise as the weights.
        seed: Of the labels that are drawn.
        teacher: The model whose answers are labels, in eval mode.
    """

    labels: Labels = "hard"
    precision: Precision = "float32"
    seed: int = 0
    teacher: nn.Module | None = None

    def __post_init__(self) -> None:
        for value, choices in ((self.labels, get_args(Labels)), (self.precision, get_args(Precision))):
            if value not in choices:
                raise PruningError(f"unknown choice {value!r}", f"choose one of {', '.join(choices)}")
        if (self.labels == "teacher") != (self.teacher is not None):
            raise PruningError(
                f"labels are {self.labels!r}, and a teacher is {'not ' if self.teacher is None else ''}given",
                "give the dense model as teacher, with labels='teacher'",
            )
        if self.teacher is not None and self.teacher.training:
            raise PruningError("the teacher is in training mode", "call teacher.eval()")

    def summed(self, model: nn.Module, images: Tensor, labels: Tensor, first: int = 0) -> Tensor:
        """The loss of a batch, summed over its images.

        Args:
            model: In eval mode.
            images: A batch [N, ...].
            labels: Class indices [N]; looked at only where they are the labels.
            first: The number of the first image in the stream.

        Raises:
            PruningError: Labels are not class indices, the loss is not finite or depends on no parameter that wants a
                gradient, or the model is its own teacher.
        """
        device = next(model.parameters()).device
        images = images.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits_NC = at_least_float32(model(images))
            targets = self.targets(images, labels, logits_NC.detach(), first).to(device)
        loss = functional.cross_entropy(logits_NC, targets, reduction="sum")
        if not bool(loss.isfinite()):
            raise NotFiniteError(
                f"the calibration loss is not finite ({float(loss.detach())})",
                "check the checkpoint, and that images are normalised as the model expects",
            )
        if not loss.requires_grad:
            raise PruningError("the loss depends on none of the targets", "check the targets of the recipe")
        return loss

    def targets(self, images: Tensor, labels: Tensor, logits_NC: Tensor, first: int) -> Tensor:
        """What the cross-entropy compares with: class indices [N], or probabilities [N, C]."""
        if self.labels == "sampled":
            return drawn(logits_NC, seed=self.seed, first=first)
        if self.teacher is not None:
            return taught(self.teacher, images, logits_NC)
        if labels.dtype != torch.int64 or labels.ndim != 1:
            raise PruningError("calibration labels must be class indices", "switch mixup and label smoothing off")
        return labels


HARD = Loss()


def at_least_float32(logits_NC: Tensor) -> Tensor:
    """Logits in float32 if autocast has made them less."""
    return logits_NC.float() if logits_NC.dtype == torch.bfloat16 else logits_NC


def drawn(logits_NC: Tensor, *, seed: int, first: int) -> Tensor:
    """A class for each image [N] with the model's probabilities.

    Image number i of the stream has a number u_i in [0, 1) of its own: its class is the first whose cumulative
    probability exceeds u_i.
    """
    draw, stop = torch.Generator().manual_seed(seed), first + len(logits_NC)
    uniform_N = torch.rand(stop, generator=draw, dtype=torch.float64)[first:]
    cumulative_NC = logits_NC.double().softmax(1).cumsum(1)
    passed_NC = cumulative_NC <= uniform_N.to(logits_NC.device)[:, None]
    return passed_NC.sum(1).clamp(max=logits_NC.shape[1] - 1)


def taught(teacher: nn.Module, images: Tensor, logits_NC: Tensor) -> Tensor:
    """The teacher's probabilities [N, C]."""
    with torch.no_grad():
        answers_NC = at_least_float32(teacher(images)).softmax(1)
    if answers_NC.shape != logits_NC.shape:
        raise PruningError(
            f"the teacher gives {answers_NC.shape[1]} classes, the model {logits_NC.shape[1]}",
            "take the dense form of the same model as teacher",
        )
    if float((answers_NC - logits_NC.softmax(1)).abs().max()) < AGREED:
        raise PruningError(
            "the model answers as its teacher does: the loss has no gradient there, and curvature would be zero",
            "labels: sampled gives the curvature of the same loss at the teacher itself",
        )
    return answers_NC
