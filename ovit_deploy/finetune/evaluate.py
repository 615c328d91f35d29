"""Top-1 accuracy with its 95 % interval."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ovit_deploy.pruning.ranks import ALONE, Ranks

_Z95 = 1.959964


@dataclass(frozen=True)
class Accuracy:
    """How many of ``total`` images were told right."""

    correct: int
    total: int

    @property
    def top1(self) -> float:
        """The fraction that is right."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `top1` (Wilson, 1927)."""
        n, p = self.total, self.top1
        centre = (p + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
        half = _Z95 / (1 + _Z95**2 / n) * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n * n))
        return centre - half, centre + half

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"top1": self.top1, "interval95": self.interval, "correct": self.correct, "images": self.total}


@dataclass(frozen=True)
class Evaluation:
    """Accuracy and mean cross-entropy (nats) on a set of images."""

    accuracy: Accuracy
    loss: float


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], ranks: Ranks = ALONE) -> Evaluation:
    """Accuracy and loss over the batches of all ranks, in eval mode, where the weights are; the flag is put back."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    correct = total = 0
    loss = 0.0
    for images, labels in batches:
        labels = labels.to(device)
        logits = model(images.to(device))
        correct += int((logits.argmax(1) == labels).sum())
        loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        total += len(labels)
    model.train(training)
    correct, total, loss = ranks.totals(correct, total, loss)
    return Evaluation(Accuracy(int(correct), int(total)), loss / total)
