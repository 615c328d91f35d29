"""Top-1 accuracy and loss of a model in PyTorch."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovit_deploy.accuracy import Accuracy
from ovit_deploy.pruning.ranks import ALONE, Ranks


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
