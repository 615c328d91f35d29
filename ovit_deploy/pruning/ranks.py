"""Processes that share the images of one run among them.

Every rank prunes the same model with the same calibration stream, and takes the gradients of its share of the stream's
batches. What is reduced over ranks are the sums that gradients go into, once a pass: half a Fisher block of B^2 numbers
and not its m gradients of B. After that each rank holds the same Fisher matrices, and comes to the same masks by
itself.

A rank that ends leaves the others no way to go on: they end with a `RankError` as soon as they need it. One that is
silent is waited for until the process group's own time-out.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from ovit_deploy.errors import PruningError, RankError


def alone(total: Tensor) -> None:
    """The sum over one rank: nothing to do."""


def over_processes(total: Tensor) -> None:
    """Replace a tensor by its sum over the processes of torch.distributed's default group.

    Raises:
        RankError: One of them has ended, or is silent.
    """
    try:
        distributed.all_reduce(total)
    except RuntimeError as error:
        told = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
        raise RankError(
            f"another rank has ended or is silent ({told})",
            "its own error says why; the run goes on from its last checkpoint with --resume",
        ) from error


@dataclass(frozen=True)
class Ranks:
    """This process among those that share the work.

    Args:
        rank: Which one this is, from 0.
        size: How many there are.
        reduce: Replaces a tensor by its sum over all ranks, in place; all ranks call it in the same order.
    """

    rank: int = 0
    size: int = 1
    reduce: Callable[[Tensor], object] = alone

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise PruningError(f"rank {self.rank} of {self.size}", "ranks count from 0")
        if self.size > 1 and self.reduce is alone:
            raise PruningError(f"{self.size} ranks without a way to add up", "use Ranks.of_process_group()")

    @classmethod
    def of_process_group(cls) -> "Ranks":
        """The ranks of torch.distributed's default process group, or one if there is none.

        Its backend takes tensors on the CPU as well as those of the model: ``gloo``, or ``cpu:gloo,cuda:nccl``.
        """
        if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size(), over_processes)

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def owns(self, number: int) -> bool:
        """Whether batch ``number`` of a stream is this rank's: they go round."""
        return number % self.size == self.rank

    @torch.no_grad()
    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their sums over all ranks, in place; those of one type in one message."""
        if self.size == 1:
            return
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault(tensor.dtype, []).append(tensor)
        for kind in kinds.values():
            message = torch.cat([tensor.reshape(-1) for tensor in kind])
            self.reduce(message)
            for tensor, total in zip(kind, message.split([tensor.numel() for tensor in kind]), strict=True):
                tensor.copy_(total.view_as(tensor))

    @torch.no_grad()
    def take_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of rank 0, in place."""
        if self.size == 1:
            return
        plain = [tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor for tensor in tensors]
        for tensor in () if self.is_first else plain:
            tensor.zero_()
        self.add_up(plain)

    def totals(self, *values: float) -> list[float]:
        """Numbers summed over all ranks, by way of a tensor on the CPU."""
        total = torch.tensor(values, dtype=torch.float64)
        self.reduce(total)
        return total.tolist()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Rank 0 does what follows first, then all others do."""
        if not self.is_first:
            self.totals(0)
        yield
        if self.is_first:
            self.totals(0)


ALONE = Ranks()
