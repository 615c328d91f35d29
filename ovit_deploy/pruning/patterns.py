"""Sparsity patterns: which weights may be zero together.

    unstructured  any weight
    N:M           N kept of each M consecutive inputs: 2:4 keeps 2 of 4, 1:4 keeps 1 of 4
    block4        4 consecutive inputs are kept or pruned together (any size: block2, block8, ...)
    RxC           blocks of R consecutive outputs and C consecutive inputs; -1 stands for all of them, so that 1x-1 are
                  whole rows (output neurons) and -1x1 whole columns

Groups are aligned: the first one starts at input 0 of output 0. A weight holds a group's weights side by side, or rows
of it, only if its last dimension is its inputs, so patterns are for linear layers and 1x1 convolutions.
"""

import re
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.method import Masks, num_zeros, target_weights
from ovit_deploy.pruning.tiles import Tile, from_tiles, to_tiles

# How far a sparsity may be from 1 - N/M: that of 1:3 is written 0.667.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Pattern:
    """A sparsity pattern.

    Args:
        name: As it is written.
        rows: Consecutive outputs that form a group; -1 for all.
        columns: Consecutive inputs that form a group; -1 for all.
        limit: The most zeros of a group of which some are kept.
        whole: Groups are kept or pruned as one.
    """

    name: str
    rows: int = 1
    columns: int = 1
    limit: int = 1
    whole: bool = False

    @property
    def tile(self) -> Tile:
        """The rows and columns of a group."""
        assert self.rows > 0 and self.columns > 0, "the pattern has not been laid on targets"
        return self.rows, self.columns

    @property
    def group(self) -> int:
        """Weights that form a group."""
        return self.tile[0] * self.tile[1]

    @property
    def unit(self) -> int:
        """How many weights go at a time."""
        return self.group if self.whole else 1

    @property
    def limited(self) -> bool:
        """Whether groups keep some of their weights: N:M."""
        return not self.whole and self.limit < self.columns

    def on(self, masks: Masks) -> "Pattern":
        """The pattern with the sizes of the targets where it says -1.

        Raises:
            PruningError: The targets have different sizes there.
        """
        if min(self.rows, self.columns) > 0:
            return self
        for name, mask in masks.items():
            if mask.ndim < 2:
                raise PruningError(f"{name} has shape {tuple(mask.shape)}, and no rows and columns for {self.name}")
        tiles = {
            name: (mask.shape[0] if self.rows < 0 else self.rows, mask.shape[1] if self.columns < 0 else self.columns)
            for name, mask in masks.items()
        }
        if not tiles:
            return self
        first, (rows, columns) = next(iter(tiles.items()))
        for name, tile in tiles.items():
            if tile != (rows, columns):
                raise PruningError(
                    f"pattern {self.name} means blocks of {rows} by {columns} in {first}, but of {tile[0]} by "
                    f"{tile[1]} in {name}",
                    "prune targets of different shapes by pruners of their own",
                )
        return replace(self, rows=rows, columns=columns)

    def units(self, tensor: Tensor) -> Tensor:
        """What is shaped like a weight as [units, weights of a unit]."""
        return to_tiles(tensor, self.tile).unflatten(0, (-1, self.unit))

    def spread_out(self, unit_values: Tensor, like: Tensor) -> Tensor:
        """A value for each unit as a tensor shaped ``like`` a weight."""
        return from_tiles(unit_values.flatten().repeat_interleave(self.unit), like.shape, self.tile)

    def num_zeros(self, masks: Masks, sparsity: float) -> int:
        """Zeros over all targets together: all groups at their limit for N:M, else the nearest whole groups.

        Raises:
            PruningError: The sparsity is not that of the pattern, or there are more zeros already.
        """
        zeros, total = num_zeros(masks, sparsity), sum(mask.numel() for mask in masks.values())
        if not self.limited:
            return round(sparsity * total / self.unit) * self.unit if self.whole else zeros
        if abs(sparsity - self.limit / self.group) > TOLERANCE:
            raise PruningError(
                f"pattern {self.name} means a sparsity of {self.limit / self.group:.4g}, not {sparsity}",
                f"ask for sparsity {self.limit / self.group:.4g}, or choose another pattern",
            )
        return total // self.group * self.limit

    def weights(self, model: nn.Module, masks: Masks) -> dict[str, Tensor]:
        """Copies of the targets, once all of them are known to take the pattern.

        Raises:
            PruningError: As :func:`~ovit_deploy.pruning.method.target_weights`; or inputs do not form groups, or the
                zeros of a mask do not fit in them.
        """
        weights = target_weights(model, masks)
        for name, weight in weights.items():
            self.check(name, weight, masks[name])
        return weights

    def check(self, name: str, weight: Tensor, mask: Tensor) -> None:
        """Refuse a weight that cannot take the pattern."""
        if self.group == 1:
            return
        if weight.ndim < 2 or weight[0, 0].numel() > 1:
            raise PruningError(
                f"{name} has shape {tuple(weight.shape)}: {self.name} is for linear layers and 1x1 convolutions",
                "leave it out of the targets, or prune it unstructured",
            )
        for size, group, kind in ((weight.shape[1], self.columns, "inputs"), (weight.shape[0], self.rows, "outputs")):
            if size % group:
                raise PruningError(
                    f"{name} has {size} {kind}, which do not form groups of {group} for {self.name}",
                    "leave it out of the targets, or choose another pattern",
                )
        zeros_G = to_tiles(~mask, self.tile).unflatten(0, (-1, self.group)).sum(dim=1)
        unfit = int(((zeros_G % self.group if self.whole else zeros_G - self.limit) > 0).sum())
        if unfit:
            raise PruningError(
                f"{unfit} groups of {name} have zeros already that do not fit in pattern {self.name}",
                "prune with this pattern from the start",
            )


UNSTRUCTURED = Pattern("unstructured")


def parse_pattern(text: str) -> Pattern:
    """The pattern that ``unstructured``, ``2:4``, ``block4`` or ``2x4`` stands for.

    Raises:
        PruningError: It stands for none.
    """
    if text == UNSTRUCTURED.name:
        return UNSTRUCTURED
    if found := re.fullmatch(r"(\d+):(\d+)", text):
        kept, group = map(int, found.groups())
        if 0 < kept < group:
            return Pattern(text, columns=group, limit=group - kept)
    if found := re.fullmatch(r"(?:block|(-1|\d+)x)(-1|\d+)", text):
        rows, columns = int(found[1] or 1), int(found[2])
        if 0 not in (rows, columns) and (rows, columns) not in ((1, 1), (-1, -1)):
            return Pattern(text, rows=rows, columns=columns, whole=True)
    raise PruningError(
        f"unknown pattern {text!r}",
        "write unstructured, N:M such as 2:4 (2 kept of 4), blockN such as block4, or RxC such as 4x1 (-1 for all)",
    )
