"""What methods that prune one layer at a time share: every layer to the same sparsity, and N:M groups.

N:M here means N weights kept of each M that follow one another in a row of the weight, as (N, M). 2:4 is then the
pattern of sparse tensor cores; the scripts of SparseGPT and Wanda name it by what goes instead (``prunen:prunem``),
so that their 1:4 is (3, 4) here. A pattern fixes the sparsity at (M - N) / M.

Shape suffixes: R rows, S scores in a row, O outputs, I inputs.
"""

import math
from collections.abc import Mapping

from torch import Tensor

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.magnitude import uniform_zeros
from ovit_deploy.pruning.method import Masks, num_zeros

Pattern = tuple[int, int]


def check_settings(*, damping: float = 0.0, pattern: Pattern | None = None, **counts: int) -> None:
    """Refuse settings that mean nothing: ``counts`` are at least 1, a pattern keeps some of a group and not all."""
    for name, count in counts.items():
        if count < 1:
            raise PruningError(f"{name} is {count}, but at least 1 is needed")
    if not (math.isfinite(damping) and damping >= 0):
        raise PruningError(f"damping is {damping}, which is not a number of at least 0")
    if pattern is not None and not 0 < pattern[0] < pattern[1]:
        raise PruningError(f"the pattern {pattern[0]}:{pattern[1]} keeps nothing or everything", "try 2:4")


def layer_zeros(masks: Masks, sparsity: float, pattern: Pattern | None = None) -> dict[str, int]:
    """Zeros of each target: of one common sparsity, or of the pattern.

    Raises:
        PruningError: The sparsity is not that of the pattern, a row does not divide into its groups, or a target has
            more zeros already.
    """
    if pattern is None:
        return uniform_zeros(masks, sparsity)
    kept, group = pattern
    total = sum(mask.numel() for mask in masks.values())
    if num_zeros(masks, sparsity) * group != total * (group - kept):
        exact = (group - kept) / group
        raise PruningError(f"{kept}:{group} is a sparsity of {exact:g}, not {sparsity}", f"ask for {exact:g}")
    for name, mask in masks.items():
        check_groups(name, mask, pattern)
    return {name: mask.numel() * (group - kept) // group for name, mask in masks.items()}


def check_groups(name: str, mask: Tensor, pattern: Pattern) -> None:
    """Refuse a target that does not divide into the groups of a pattern, or cannot follow it any more."""
    kept, group = pattern
    if mask.ndim > 2 and mask[0, 0].numel() > 1:
        raise PruningError(
            f"{name} is a convolution with a kernel larger than 1: groups of {group} inputs are not neighbours in it",
            "leave it out of the targets, or prune it without a pattern",
        )
    if mask[0].numel() % group:
        raise PruningError(
            f"{name} has rows of {mask[0].numel()} weights, which are not groups of {group}",
            "leave it out of the targets, or choose another pattern",
        )
    worst = group - int(mask.reshape(-1, group).sum(dim=1).min())
    if worst > group - kept:
        raise PruningError(
            f"{name} has {worst} zeros in a group of {group} already, {kept}:{group} allows {group - kept}",
            "apply the pattern before other pruning",
        )


def smallest_of_rows(score_RS: Tensor, counts_R: Tensor | int) -> Tensor:
    """True at the ``counts_R`` smallest scores of each row, the first of equals first; leading dimensions are free."""
    rank_RS = score_RS.argsort(dim=-1, stable=True).argsort(dim=-1)
    return rank_RS < (counts_R[..., None] if isinstance(counts_R, Tensor) else counts_R)


def as_matrix(tensor: Tensor, curvature: Tensor) -> Tensor:
    """A tensor shaped like a weight as [G, O, I], the groups and inputs those of an H [G, I, I] or norms [G, I]."""
    return tensor.reshape(len(curvature), -1, curvature.shape[-1])


def to_masks(kept: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """New masks in the order, shapes and places of the old."""
    return {name: kept[name].view_as(mask).to(mask.device) for name, mask in masks.items()}
