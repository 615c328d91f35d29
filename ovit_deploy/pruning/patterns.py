"""Sparsity patterns: which weights of a row may be zero together.

    unstructured  any weight
    N:M           N kept of each M consecutive inputs: 2:4 keeps 2 of 4, 1:4 keeps 1 of 4
    block4        4 consecutive inputs are kept or pruned together (any size: block2, block8, ...)

Groups are aligned: the first one starts at input 0. A weight flattened row-major holds a group's weights side by side
only if its last dimension is its inputs, so patterns are for linear layers and 1x1 convolutions.
"""

import re
from dataclasses import dataclass

from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.method import Masks, num_zeros, target_weights

# How far a sparsity may be from 1 - N/M: that of 1:3 is written 0.667.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Pattern:
    """A sparsity pattern.

    Args:
        name: As it is written.
        group: Consecutive inputs that form a group.
        limit: The most zeros of a group.
        whole: Groups are kept or pruned as one.
    """

    name: str
    group: int = 1
    limit: int = 1
    whole: bool = False

    @property
    def unit(self) -> int:
        """How many weights go at a time."""
        return self.group if self.whole else 1

    @property
    def limited(self) -> bool:
        """Whether groups keep some of their weights: N:M."""
        return self.limit < self.group

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
        if weight.shape[1] % self.group:
            raise PruningError(
                f"{name} has {weight.shape[1]} inputs, which do not form groups of {self.group} for {self.name}",
                "leave it out of the targets, or choose another pattern",
            )
        zeros_G = (~mask).flatten().unflatten(0, (-1, self.group)).sum(dim=1)
        unfit = int(((zeros_G % self.group if self.whole else zeros_G - self.limit) > 0).sum())
        if unfit:
            raise PruningError(
                f"{unfit} groups of {name} have zeros already that do not fit in pattern {self.name}",
                "prune with this pattern from the start",
            )


UNSTRUCTURED = Pattern("unstructured")


def parse_pattern(text: str) -> Pattern:
    """The pattern that ``unstructured``, ``2:4`` or ``block4`` stands for.

    Raises:
        PruningError: It stands for none.
    """
    if text == UNSTRUCTURED.name:
        return UNSTRUCTURED
    if found := re.fullmatch(r"(\d+):(\d+)", text):
        kept, group = map(int, found.groups())
        if 0 < kept < group:
            return Pattern(text, group=group, limit=group - kept)
    if found := re.fullmatch(r"block(\d+)", text):
        size = int(found[1])
        if size > 1:
            return Pattern(text, group=size, limit=size, whole=True)
    raise PruningError(
        f"unknown pattern {text!r}", "write unstructured, N:M such as 2:4 (2 kept of 4), or blockN such as block4"
    )
