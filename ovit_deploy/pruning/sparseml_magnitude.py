"""Magnitude pruning as SparseML 1.8.0 does it, down to its ties and its rounding: for ``compat: sparseml``.

It differs from magnitude.py in four things. Each target is rounded by itself, ``round(sparsity * n)``. Of equal scores
at the threshold the *last* go; but where the threshold is the smallest score of all (more zeros than are asked for),
which of those go is drawn by Python's ``random.Random(42)``. Groups that go whole are ranked by their mean magnitude,
not their norm. And a mask may let go of zeros that were pruned before.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.patterns import Pattern, parse_pattern

_SEED = 42


@dataclass(frozen=True)
class SparseMLMagnitude:
    """The smallest weights of each target, or of all together.

    Args:
        pattern: ``unstructured``, ``N:M`` or ``block4``: patterns.py.
        all_together: One threshold for all targets; N:M leaves nothing to choose between them.
        wanted: A sparsity for each target; None takes the common one.
    """

    pattern: str = "unstructured"
    all_together: bool = False
    wanted: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        parse_pattern(self.pattern)

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """See :class:`ovit_deploy.pruning.method.Method`; looks at no images."""
        pattern = parse_pattern(self.pattern)
        weights = pattern.weights(model, masks)
        scores = [weight.abs() for weight in weights.values()]
        asked = [self.wanted[name] if self.wanted else sparsity for name in weights]
        if pattern.limited:
            kept = [largest_of_groups(score, pattern) for score in scores]
        else:
            grouped = [_means(score, pattern) for score in scores]
            chosen = largest_of_all(grouped, asked[0]) if self.all_together else list(map(largest, grouped, asked))
            kept = [mask.flatten().repeat_interleave(pattern.unit) for mask in chosen]
        found = {name: mask.view_as(weights[name]) for name, mask in zip(weights, kept, strict=True)}
        return Pruned(found, {name: weight.masked_fill(~found[name], 0) for name, weight in weights.items()})


def largest(score: Tensor, sparsity: float) -> Tensor:
    """Mask that drops the ``round(sparsity * n)`` smallest scores, with SparseML's ties."""
    if score.numel() == 0 or sparsity <= 0:
        return torch.ones_like(score, dtype=torch.bool)
    wanted = round(sparsity * score.numel())
    threshold = score.flatten().sort().values[max(wanted - 1, 0)]
    if threshold == score.min():
        return _without_drawn(score, threshold, wanted)
    kept = (score > threshold).flatten()
    ties = (score == threshold).flatten().nonzero().flatten()
    kept[ties[: int((~kept).sum()) - wanted]] = True
    return kept.view_as(score)


def largest_of_all(scores: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """`largest` of all scores together, as a mask for each."""
    kept = largest(torch.cat([score.flatten() for score in scores]), sparsity)
    parts = kept.split([score.numel() for score in scores])
    return [part.view_as(score) for part, score in zip(parts, scores, strict=True)]


def largest_of_groups(score: Tensor, pattern: Pattern) -> Tensor:
    """Mask that drops the ``limit`` smallest scores of each group, in the order that torch's sort happens to give."""
    score_GS = score.reshape(-1, pattern.group)
    kept_GS = torch.ones_like(score_GS, dtype=torch.bool)
    return kept_GS.scatter_(1, score_GS.argsort(dim=1)[:, : pattern.limit], False).view_as(score)


def _without_drawn(score: Tensor, smallest: Tensor, wanted: int) -> Tensor:
    """Mask that drops ``wanted`` of the smallest scores, drawn from them with a fixed seed."""
    places = (score == smallest).flatten().nonzero().flatten()
    order = list(range(len(places)))
    random.Random(_SEED).shuffle(order)
    kept = torch.ones(score.numel(), dtype=torch.bool, device=score.device)
    kept[places[torch.tensor(order[:wanted], dtype=torch.int64, device=score.device)]] = False
    return kept.view_as(score)


def _means(score: Tensor, pattern: Pattern) -> Tensor:
    return score if pattern.unit == 1 else score.reshape(-1, pattern.unit).mean(1)
