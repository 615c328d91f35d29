"""Channels: what goes together when one feature map of a network goes, in all layers that make, pass on or read it.

A group is the feature maps that one sum of layers gives, such as the residual stream of a stage or the inside of a
block. Its producers have a row for each channel, norms and depthwise convolutions between have an entry, and its
consumers have columns. Without a channel's columns nothing else of it matters: a network whose consumers have zeros
there answers as one without the channel. That is so where nothing mixes channels on the way, such as a LayerNorm;
dependencies.py finds such groups and tries them.

Shape suffixes: C channels of a group, S indices of a channel along one dimension.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovit_deploy.structure.cutting import Cut, carry_out
from ovit_deploy.structure.sizes import Shapes

Gone = Mapping[str, Iterable[int]]  # channels by the name of their group


@dataclass(frozen=True)
class Slice:
    """Where the channels of a group are in a tensor; ``index_CS`` are the indices along ``dim``."""

    tensor: str
    dim: int
    index_CS: Tensor
    reads: bool = False  # whether it is a consumer's: channels come in there, and end


@dataclass(frozen=True)
class Group:
    """Channels that go together; named after the first layer that makes them."""

    name: str
    slices: tuple[Slice, ...]

    @property
    def count(self) -> int:
        """Of its channels."""
        return len(self.slices[0].index_CS)

    @property
    def consumers(self) -> tuple[Slice, ...]:
        """Where channels end."""
        return tuple(slice_ for slice_ in self.slices if slice_.reads)

    @property
    def producers(self) -> tuple[str, ...]:
        """The weights whose rows make the channels."""
        return tuple(slice_.tensor for slice_ in self.slices if not slice_.reads and slice_.tensor.endswith(".weight"))


def plan_of(model: nn.Module, groups: Iterable[Group], gone: Gone) -> dict[str, Cut]:
    """How each parameter and buffer is cut, by name, when channels go."""
    indices: dict[str, dict[int, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    for group in groups:
        channels = torch.tensor(sorted(set(gone.get(group.name, ()))), dtype=torch.long)
        if len(channels):
            for slice_ in group.slices:
                indices[slice_.tensor][slice_.dim].append(slice_.index_CS[channels].flatten())
    sizes = shapes_of(model)
    return {
        name: tuple((dim, _others(sizes[name][dim], torch.cat(parts))) for dim, parts in sorted(dims.items()))
        for name, dims in indices.items()
    }


def _others(size: int, gone: Tensor) -> Tensor:
    stays = torch.ones(size, dtype=torch.bool)
    stays[gone] = False
    return stays.nonzero().flatten()


@torch.no_grad()
def mask_channels(model: nn.Module, groups: Iterable[Group], gone: Gone) -> None:
    """Zeros in all consumers, in place: the network that `remove_channels` makes smaller."""
    for group in groups:
        channels = torch.tensor(sorted(set(gone.get(group.name, ()))), dtype=torch.long)
        for slice_ in group.consumers:
            weight = model.get_parameter(slice_.tensor)
            weight.index_fill_(slice_.dim, slice_.index_CS[channels].flatten().to(weight.device), 0)


def remove_channels(model: nn.Module, groups: Iterable[Group], gone: Gone) -> dict[str, Cut]:
    """Take channels out of ``model``, in place: parameters that change are new objects.

    Returns:
        How each parameter and buffer was cut, as `plan_of`.
    """
    plan = plan_of(model, groups, gone)
    carry_out(model, plan)
    return plan


def shrink_to(model: nn.Module, shapes: Shapes) -> dict[str, Cut]:
    """Bring a model to ``shapes`` in place; the first entries stay, to be given other values.

    Raises:
        ModelError: the model has less than that.
    """
    whole = shapes_of(model)
    shapes.refuse_larger(whole)
    plan: dict[str, Cut] = {
        name: tuple((dim, torch.arange(size)) for dim, size in enumerate(shape) if size < whole[name][dim])
        for name, shape in shapes.of.items()
    }
    carry_out(model, plan)
    return plan


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of all parameters and buffers, by name."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: tuple(tensor.shape) for name, tensor in tensors}
