"""Processes that share the calibration images among them.

Every rank prunes the same model with the same calibration stream, and takes the gradients of its share of the stream's
batches. What is reduced over ranks are the sums that gradients go into, once a pass: a Fisher block of B^2 numbers and
not its m gradients of B. After that each rank holds the same Fisher matrices, and comes to the same masks by itself.

A rank that fails leaves the others waiting until the process group's own time-out.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, distributed

from ovit_deploy.errors import PruningError


def alone(total: Tensor) -> None:
    """The sum over one rank: nothing to do."""


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
        """The ranks of torch.distributed's default process group, or one if there is none."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size(), distributed.all_reduce)

    def owns(self, number: int) -> bool:
        """Whether batch ``number`` of a stream is this rank's: they go round."""
        return number % self.size == self.rank

    def total(self, value: float, like: Tensor) -> float:
        """A number summed over all ranks, by way of a tensor on the device of ``like``."""
        tensor = like.new_tensor([value])
        self.reduce(tensor)
        return float(tensor)


ALONE = Ranks()
