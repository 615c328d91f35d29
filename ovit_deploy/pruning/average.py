"""A moving average of Fisher blocks over the prunings of one gradual schedule.

    F <- decay F_before + (1 - decay) F_now       F_before restricted to the weights that are active now

The first pruning's Fisher matrix starts the average. It is taken before damping. What lies between two prunings, the
weights' training, is not corrected for: the more they move, the less an old Fisher matrix says.
"""

from dataclasses import dataclass, field

from torch import Tensor

from ovit_deploy.errors import PruningError


@dataclass
class FisherAverage:
    """State that is carried from one pruning to the next; each pruning changes it.

    Args:
        decay: Weight of what was there before, in [0, 1).
        blocks: The average of each weight so far [K, B, B], undamped; empty at first. All there is to save.
    """

    decay: float
    blocks: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise PruningError(f"the decay of the Fisher average is {self.decay}, not in [0, 1)")

    def update(self, name: str, fisher_KBB: Tensor, active_KB: Tensor) -> None:
        """Take a new Fisher matrix in, and put the average in its place.

        Raises:
            PruningError: The average has other blocks.
        """
        before_KBB = self.blocks.get(name)
        if before_KBB is not None:
            if before_KBB.shape != fisher_KBB.shape:
                raise PruningError(
                    f"the Fisher average of {name} has blocks {tuple(before_KBB.shape)}, now {tuple(fisher_KBB.shape)}",
                    "keep the block size, or start a new average",
                )
            active = active_KB.to(before_KBB)
            before_KBB.mul_(active[:, :, None]).mul_(active[:, None, :])
            fisher_KBB.lerp_(before_KBB.to(fisher_KBB.device), self.decay)
        self.blocks[name] = fisher_KBB.clone()
