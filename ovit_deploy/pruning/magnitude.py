"""Magnitude pruning: the smallest weights go, and nothing compensates.

Global (Han et al. 2015, arXiv 1506.02626, over all layers together) and uniform (every layer to the same sparsity). The
number of zeros is ``round(sparsity * n)``; of equal magnitudes the one that stands first goes first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report, num_zeros, target_weights


@dataclass(frozen=True)
class GlobalMagnitude:
    """The smallest weights of all targets together."""

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
        weights = target_weights(model, masks)
        magnitudes = [magnitude(weights[name], masks[name]).flatten() for name in masks]
        kept = without_smallest(torch.cat(magnitudes), num_zeros(masks, sparsity))
        parts = kept.split([mask.numel() for mask in masks.values()])
        return pruned_to(weights, {name: part.view_as(masks[name]) for name, part in zip(masks, parts, strict=True)})


@dataclass(frozen=True)
class UniformMagnitude:
    """The smallest weights of each target, every target to the same sparsity."""

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
        weights = target_weights(model, masks)
        shares = uniform_zeros(masks, sparsity)
        kept = {name: without_smallest(magnitude(weights[name], mask), shares[name]) for name, mask in masks.items()}
        return pruned_to(weights, kept)


def uniform_zeros(masks: Masks, sparsity: float) -> dict[str, int]:
    """Zeros of each target at one common sparsity.

    Raises:
        PruningError: The sparsity cannot be had, or a target is sparser already.
    """
    shares = uniform_shares({name: mask.numel() for name, mask in masks.items()}, num_zeros(masks, sparsity))
    for name, mask in masks.items():
        present = mask.numel() - int(mask.sum())
        if present > shares[name]:
            raise PruningError(
                f"{name} has {present} zeros already, uniform sparsity {sparsity} wants {shares[name]}",
                "ask for more sparsity, or prune globally",
            )
    return shares


def magnitude(weight: Tensor, mask: Tensor) -> Tensor:
    """|w|, and -1 where the weight is pruned already, so that it goes first."""
    return weight.abs().masked_fill(~mask.to(weight.device), -1)


def without_smallest(score: Tensor, num_removed: int) -> Tensor:
    """Mask that drops the ``num_removed`` smallest scores, the first of equals first."""
    kept = torch.ones(score.numel(), dtype=torch.bool, device=score.device)
    kept[score.flatten().argsort(stable=True)[:num_removed]] = False
    return kept.view_as(score)


def uniform_shares(sizes: Mapping[str, int], total_zeros: int) -> dict[str, int]:
    """Zeros of each target at one common sparsity, exact in total."""
    return dict(zip(sizes, in_proportion(list(sizes.values()), total_zeros), strict=True))


def in_proportion(sizes: Sequence[int], num: int) -> list[int]:
    """``num`` dealt out by ``sizes``: rounded down, then by the largest remainder. No share exceeds its size."""
    total = sum(sizes)
    assert 0 <= num <= total
    shares = [num * size // total if total else 0 for size in sizes]
    missing = num - sum(shares)
    by_remainder = sorted(range(len(sizes)), key=lambda at: -(num * sizes[at] % total) if total else 0)
    for at in by_remainder[:missing]:
        shares[at] += 1
    return shares


def pruned_to(weights: Mapping[str, Tensor], kept: dict[str, Tensor]) -> Pruned:
    """The present weights, cut to the masks."""
    return Pruned(kept, {name: weight.masked_fill(~kept[name], 0) for name, weight in weights.items()})
