"""What methods that prune one layer at a time share: how many zeros each gets, and the way through the layers.

Shape suffixes: R rows, S scores in a row, G groups of a convolution, O outputs of a group, I inputs of a group.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.hessian import Images, damped, input_hessians, output_error
from ovit_deploy.pruning.magnitude import check_layer_rule
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.patterns import Pattern, parse_pattern
from ovit_deploy.pruning.spread import LayerRule, Spread, layer_shares
from ovit_deploy.pruning.tiles import Tile


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


class Settings(Protocol):
    """The fields that these methods share."""

    @property
    def pattern(self) -> str:
        """Which weights may be zero together: patterns.py."""
        ...

    @property
    def allocation(self) -> LayerRule:
        """How zeros are shared out to layers: ``uniform``, ``erk`` or ``owl``."""
        ...

    @property
    def spread(self) -> Spread:
        """Bounds of layers, and settings of OWL."""
        ...


def check_settings(settings: Settings, *, damping: float = 0.0, **counts: int) -> None:
    """Refuse settings that mean nothing: ``counts`` are at least 1."""
    for name, count in counts.items():
        if count < 1:
            raise PruningError(f"{name} is {count}, but at least 1 is needed")
    if not (math.isfinite(damping) and damping >= 0):
        raise PruningError(f"damping is {damping}, which is not a number of at least 0")
    check_layer_rule(settings.allocation)
    settings.spread.check(settings.allocation, parse_pattern(settings.pattern))


def layer_zeros(
    settings: Settings, model: nn.Module, masks: Masks, sparsity: float, calibration: Calibration | None
) -> tuple[dict[str, Tensor], Pattern, dict[str, int]]:
    """Copies of the targets, the pattern laid on them, and the zeros that each gets.

    Raises:
        PruningError: The sparsity cannot be had, a target does not take the pattern or has more zeros already.
    """
    pattern = parse_pattern(settings.pattern).on(masks)
    weights, total = pattern.weights(model, masks), pattern.num_zeros(masks, sparsity)
    layers = settings.spread.layers(model, masks, rule=settings.allocation, pattern=pattern, calibration=calibration)
    if pattern.limited:
        return weights, pattern, {name: mask.numel() // pattern.group * pattern.limit for name, mask in masks.items()}
    sizes = {name: mask.numel() // pattern.unit for name, mask in masks.items()}
    present = {name: (mask.numel() - int(mask.sum())) // pattern.unit for name, mask in masks.items()}
    shares = layer_shares(settings.allocation, sizes, present, total // pattern.unit, layers)
    return weights, pattern, {name: share * pattern.unit for name, share in shares.items()}


def smallest_of_rows(score_RS: Tensor, counts_R: Tensor | int) -> Tensor:
    """True at the ``counts_R`` smallest scores of each row, the first of equals first; leading dimensions are free."""
    rank_RS = score_RS.argsort(dim=-1, stable=True).argsort(dim=-1)
    return rank_RS < (counts_R[..., None] if isinstance(counts_R, Tensor) else counts_R)


def in_units(matrix_GOI: Tensor, tile: Tile) -> Tensor:
    """Sums over tiles [G, O / rows, I / columns].

    Raises:
        PruningError: A group of a convolution does not divide into tiles.
    """
    rows, columns = tile
    if matrix_GOI.shape[1] % rows:
        raise PruningError(
            f"blocks of {rows} rows do not divide the {matrix_GOI.shape[1]} outputs of a group of a convolution",
            "leave the layer out of the targets, or choose another pattern",
        )
    return matrix_GOI.unflatten(2, (-1, columns)).unflatten(1, (-1, rows)).sum(dim=(2, 4))


def out_of_units(units_GPQ: Tensor, tile: Tile) -> Tensor:
    """The value of a tile for each of its weights [G, O, I]."""
    return units_GPQ.repeat_interleave(tile[0], dim=1).repeat_interleave(tile[1], dim=2)


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
