"""Magnitude pruning: the smallest weights go, and nothing compensates.

Global (Han et al. 2015, arXiv 1506.02626, over all layers together) and uniform (every layer to the same sparsity). The
number of zeros is ``round(sparsity * n)``; of equal magnitudes the one that stands first goes first. With a pattern
(patterns.py) the N largest of each M stay, or whole groups go, the smallest norm first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report, num_zeros
from ovit_deploy.pruning.patterns import Pattern, parse_pattern
from ovit_deploy.pruning.shares import uniform_shares


@dataclass(frozen=True)
class GlobalMagnitude:
    """The smallest weights of all targets together.

    Args:
        pattern: ``unstructured``, ``N:M`` or ``block4``: patterns.py. N:M leaves nothing to choose between layers.
    """

    pattern: str = "unstructured"

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
        return prune_by_magnitude(
            model, masks, sparsity, parse_pattern(self.pattern), lambda scores, num, _: largest_of_all(scores, num)
        )


@dataclass(frozen=True)
class UniformMagnitude:
    """The smallest weights of each target, every target to the same sparsity.

    Args:
        pattern: ``unstructured``, ``N:M`` or ``block4``: patterns.py.
    """

    pattern: str = "unstructured"

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
        return prune_by_magnitude(model, masks, sparsity, parse_pattern(self.pattern), largest_of_each)


def prune_by_magnitude(
    model: nn.Module,
    masks: Masks,
    sparsity: float,
    pattern: Pattern,
    choose: Callable[[Mapping[str, Tensor], int, Pattern], Mapping[str, Tensor]],
) -> Pruned:
    """Drop the smallest: so many of each group where the pattern says so, else as ``choose`` spreads the removals."""
    weights, zeros = pattern.weights(model, masks), pattern.num_zeros(masks, sparsity)
    scores = {name: magnitude(weights[name], masks[name], pattern) for name in masks}
    if pattern.limited:
        return pruned_to(weights, {name: largest_of_groups(score, pattern) for name, score in scores.items()})
    return pruned_to(weights, choose(scores, zeros // pattern.unit, pattern))


def uniform_zeros(masks: Masks, sparsity: float) -> dict[str, int]:
    """Zeros of each target at one common sparsity.

    Raises:
        PruningError: The sparsity cannot be had, or a target is sparser already.
    """
    present = {name: mask.numel() - int(mask.sum()) for name, mask in masks.items()}
    return growing_shares({name: mask.numel() for name, mask in masks.items()}, present, num_zeros(masks, sparsity))


def growing_shares(
    sizes: Mapping[str, int], present: Mapping[str, int], total_zeros: int, *, unit: int = 1
) -> dict[str, int]:
    """`uniform_shares`, none below the zeros that are there already; all in groups of ``unit`` weights.

    Raises:
        PruningError: A target is sparser already.
    """
    shares = uniform_shares(sizes, total_zeros)
    for name, share in shares.items():
        if present[name] > share:
            raise PruningError(
                f"{name} has {present[name] * unit} zeros already, uniform sparsity wants {share * unit}",
                "ask for more sparsity, or prune globally",
            )
    return shares


def magnitude(weight: Tensor, mask: Tensor, pattern: Pattern) -> Tensor:
    """|w|, or the norm of each group that goes whole; -1 where it is pruned already, so that it goes first."""
    score, gone = weight.abs().flatten(), ~mask.to(weight.device).flatten()
    if pattern.whole:
        score = torch.linalg.vector_norm(score.view(-1, pattern.group), dim=1)
        gone = gone.view(-1, pattern.group).all(dim=1)
    return score.masked_fill(gone, -1)


def largest_of_groups(score: Tensor, pattern: Pattern) -> Tensor:
    """Mask that drops the ``limit`` smallest scores of each group, the first of equals first."""
    order_GS = score.view(-1, pattern.group).argsort(dim=1, stable=True)
    return (order_GS.argsort(dim=1) >= pattern.limit).flatten()


def largest_of_all(scores: Mapping[str, Tensor], num_removed: int) -> dict[str, Tensor]:
    """Masks that drop the ``num_removed`` smallest scores of all targets together."""
    kept = without_smallest(torch.cat([score.flatten() for score in scores.values()]), num_removed)
    parts = kept.split([score.numel() for score in scores.values()])
    return dict(zip(scores, parts, strict=True))


def largest_of_each(scores: Mapping[str, Tensor], num_removed: int, pattern: Pattern) -> dict[str, Tensor]:
    """Masks that drop the smallest scores of each target, ``num_removed`` in all, at one common sparsity."""
    present = {name: int((score < 0).sum()) for name, score in scores.items()}
    sizes = {name: score.numel() for name, score in scores.items()}
    shares = growing_shares(sizes, present, num_removed, unit=pattern.unit)
    return {name: without_smallest(score, shares[name]) for name, score in scores.items()}


def without_smallest(score: Tensor, num_removed: int) -> Tensor:
    """Mask that drops the ``num_removed`` smallest scores, the first of equals first."""
    kept = torch.ones(score.numel(), dtype=torch.bool, device=score.device)
    kept[score.flatten().argsort(stable=True)[:num_removed]] = False
    return kept.view_as(score)


def pruned_to(weights: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Pruned:
    """The present weights, cut to what is kept of each: weights, or whole groups of them."""
    masks = {}
    for name, weight in weights.items():
        unit = weight.numel() // kept[name].numel()
        masks[name] = kept[name].flatten().repeat_interleave(unit).view_as(weight)
    return Pruned(masks, {name: weight.masked_fill(~masks[name], 0) for name, weight in weights.items()})
