"""What a network without some channels costs, counted exactly before they are removed.

A layer that loses inputs and outputs saves their product, so that prices of channels do not add up. Each tensor costs
its size, as it is then, times a factor: 1 to count parameters, the pixels that its layer gives to count
multiply-accumulates.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from ovit_deploy.flops import flops
from ovit_deploy.structure.channels import Group

Kind = Literal["channels", "embedding", "flops", "parameters"]


@dataclass(frozen=True)
class Bill:
    """Of a model with its channels in ``groups``.

    Args:
        groups: By name.
        shapes: Of the tensors that cost something.
        factors: What one number of each costs.
        channel: What a channel itself costs.
        rest: What stays in any case.
    """

    groups: Mapping[str, Group]
    shapes: Mapping[str, tuple[int, ...]]
    factors: Mapping[str, int]
    channel: int
    rest: int

    def of(self, gone: Mapping[str, int]) -> int:
        """Without so many channels of each group."""
        lost: Counter[tuple[str, int]] = Counter()
        for name, count in gone.items():
            for slice_ in self.groups[name].slices:
                lost[slice_.tensor, slice_.dim] += count * slice_.index_CS.shape[1]
        left = sum(group.count - gone.get(name, 0) for name, group in self.groups.items())
        tensors = (
            factor * math.prod(size - lost[name, dim] for dim, size in enumerate(self.shapes[name]))
            for name, factor in self.factors.items()
        )
        return self.rest + self.channel * left + sum(tensors)


def bill_of(model: nn.Module, groups: Iterable[Group], kind: Kind) -> Bill:
    """Prices by ``kind``: multiply-accumulates of one image, parameters, or channels themselves."""
    named = {group.name: group for group in groups}
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    match kind:
        case "channels" | "embedding":
            return Bill(named, {}, {}, channel=1, rest=0)
        case "parameters":
            return Bill(named, shapes, dict.fromkeys(shapes, 1), channel=0, rest=0)
        case "flops":
            matrices = [name for name, shape in shapes.items() if name.endswith(".weight") and len(shape) > 1]
            counted = flops(model, matrices)
            factors = {name: round(each / 2) for name, each in counted.per_weight.items()}
            known = sum(factor * math.prod(shapes[name]) for name, factor in factors.items())
            return Bill(named, shapes, factors, channel=0, rest=counted.total // 2 - known)
