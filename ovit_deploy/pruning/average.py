"""A moving average of Fisher blocks over the prunings of one gradual schedule.

    F <- decay F_before + (1 - decay) F_now       F_before restricted to the weights that are active now

The first pruning's Fisher matrix starts the average. It is taken before damping, and held by half (kernels/triangle).
What lies between two prunings, the weights' training, is not corrected for: the more they move, the less an old Fisher
matrix says.

Shape suffixes: K Fisher blocks, B weights in a block, H numbers held of its matrix.
"""

from dataclasses import dataclass, field

from torch import Tensor

from ovit_deploy.errors import PruningError
from ovit_deploy.kernels import triangle


@dataclass
class FisherAverage:
    """State that is carried from one pruning to the next; each pruning changes it.

    Args:
        decay: Weight of what was there before, in [0, 1).
        blocks: What is held of each weight's average so far [K, H], undamped; empty at first. All there is to save.
    """

    decay: float
    blocks: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise PruningError(f"the decay of the Fisher average is {self.decay}, not in [0, 1)")

    def update(self, name: str, held_KH: Tensor, active_KB: Tensor) -> None:
        """Take a new Fisher matrix in, and put the average in its place.

        Raises:
            PruningError: The average has other blocks.
        """
        before_KH = self.blocks.get(name)
        if before_KH is not None:
            if before_KH.shape != held_KH.shape:
                raise PruningError(
                    f"the Fisher average of {name} is held as {tuple(before_KH.shape)}, now as {tuple(held_KH.shape)}",
                    "keep the block size, or start a new average",
                )
            triangle.restrict(before_KH, active_KB)
            held_KH.lerp_(before_KH.to(held_KH.device), self.decay)
        self.blocks[name] = held_KH.clone()
