"""What methods that prune one layer at a time share: the same sparsity in each, N:M groups, the way through the layers.

N:M here means N weights kept of each M that follow one another in a row of the weight, as (N, M). 2:4 is then the
pattern of sparse tensor cores; the scripts of SparseGPT and Wanda name it by what goes instead (``prunen:prunem``),
so that their 1:4 is (3, 4) here. A pattern fixes the sparsity at (M - N) / M.

Shape suffixes: R rows, S scores in a row, G groups of a convolution, O outputs of a group, I inputs of a group.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.hessian import Images, damped, input_hessians, output_error
from ovit_deploy.pruning.magnitude import uniform_zeros
from ovit_deploy.pruning.method import Masks, Pruned, Report, num_zeros

Pattern = tuple[int, int]


@dataclass(frozen=True)
class PrunedLayer:
    """A layer after pruning.

    Args:
        weights_GOI: New values in float64, exact zeros where pruned.
        kept_GOI: True where a weight is kept.
        jitter: Largest jitter of its curvature matrices, in multiples of the mean diagonal.
    """

    weights_GOI: Tensor
    kept_GOI: Tensor
    jitter: float


# Given a layer's weights, what of them is kept at present [G, O, I], H [G, I, I] and the number of zeros wanted.
Solve = Callable[[Tensor, Tensor, Tensor, int], PrunedLayer]


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
    exact = (group - kept) / group
    if not math.isclose(sparsity, exact, abs_tol=1e-6):  # as many digits as the error shows
        raise PruningError(f"{kept}:{group} is a sparsity of {exact:g}, not {sparsity}", f"ask for {exact:g}")
    num_zeros(masks, exact)  # which refuses to go back
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


def reconstruct(
    model: nn.Module,
    weights: dict[str, Tensor],
    masks: Masks,
    zeros: Mapping[str, int],
    images: Images,
    solve: Solve,
    *,
    damping: float,
    memory_budget: int | None,
    copies: int,
    report: Report,
) -> Pruned:
    """Prune every layer so that its outputs change least, one layer after the other.

    Args:
        model: Its inputs make the Hessians.
        weights: Present values; become the new ones.
        masks: Targets, and what is kept of them.
        zeros: Zeros of each target.
        images: What the model looks at.
        solve: How a layer is pruned with its damped Hessian.
        damping: Relative, as in :func:`ovit_deploy.pruning.hessian.damped`.
        memory_budget: Bytes, or None for half of the free memory.
        copies: Of a Hessian, that ``solve`` takes.
        report: Told of each layer.

    Returns:
        No predicted loss; ``output_error`` of each layer in the details.
    """
    kept: dict[str, Tensor] = {}
    errors: dict[str, float] = {}
    jitter: dict[str, float] = {}
    hessians = input_hessians(model, list(masks), images, memory_budget=memory_budget, copies=copies, report=report)
    for name, hessian_GII in hessians:
        report(f"pruning {name}")
        w_GOI = as_matrix(weights[name], hessian_GII)
        kept_GOI = as_matrix(masks[name].to(w_GOI.device), hessian_GII)
        found = solve(w_GOI, kept_GOI, damped(hessian_GII, damping), zeros[name])
        errors[name] = output_error(found.weights_GOI - w_GOI, w_GOI, hessian_GII)
        kept[name] = found.kept_GOI
        if found.jitter:
            jitter[name] = found.jitter
        w_GOI.copy_(found.weights_GOI)
    details = {"num_samples": images.num_samples, "output_error": errors, "jitter": jitter}
    return Pruned(to_masks(kept, masks), weights, None, details)
