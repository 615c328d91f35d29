"""The order in which an epoch's images are drawn, and which rank draws which: a function of the seed and the epoch."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from timm.data.distributed_sampler import RepeatAugSampler
from torch.utils.data import Sampler

from ovit_deploy.data.randomness import Chance, key


class Draw(NamedTuple):
    """One image of an epoch: ``position`` counts draws in the epoch, ``index`` is the image's in its data set."""

    epoch: int
    position: int
    index: int


class EpochOrder(Sampler[Draw]):
    """All images in a random order; with repeated augmentation, a part of them several times.

    Repeated augmentation (Hoffer et al., arXiv 1901.09335; as in DeiT, arXiv 2012.12877) draws each image ``repeats``
    times in a row and stops after as many draws as there are images, so that an epoch keeps its length.

    Args:
        num_images: in the data set.
        seed: of the run.
        repeats: how often an image is drawn in an epoch.
    """

    def __init__(self, num_images: int, *, seed: int, repeats: int = 1) -> None:
        self.seed = seed
        self.epoch = 0
        self.first = 0
        self.sampler = RepeatAugSampler(
            range(num_images), num_replicas=1, rank=0, num_repeats=repeats, selected_round=0
        )

    def set_epoch(self, epoch: int, *, first: int = 0) -> None:
        """Go to ``epoch``; its draws before position ``first`` are left out."""
        self.epoch, self.first = epoch, first

    def __iter__(self) -> Iterator[Draw]:
        epoch = self.epoch
        self.sampler.set_epoch(key(Chance.ORDER, self.seed, epoch))
        for position, index in islice(enumerate(self.sampler), self.first, None):
            yield Draw(epoch, position, index)

    def __len__(self) -> int:
        """Draws of a whole epoch."""
        return len(self.sampler)


class StepDraws(Sampler[list[Draw]]):
    """The draws of each optimizer step that are one rank's; an incomplete last step is dropped.

    All ranks' draws together are those of a single one: which images a step learns from does not depend on how many
    processes share it. A rank takes draws from both ends of the step, so that it has both images of every pair that
    mixup mixes (the i-th and the i-th last); an odd number of draws a rank splits some pairs.

    Args:
        order: of all draws.
        batch_size: draws of a step, over all ranks; a multiple of ``num_ranks``.
        rank: whose draws.
        num_ranks: how many share a step.
    """

    def __init__(self, order: EpochOrder, batch_size: int, *, rank: int = 0, num_ranks: int = 1) -> None:
        assert batch_size % num_ranks == 0
        self.order = order
        self.batch_size = batch_size
        from_both_ends = sorted(range(batch_size), key=lambda place: min(place, batch_size - 1 - place))
        share = batch_size // num_ranks
        self.places = sorted(from_both_ends[rank * share : (rank + 1) * share])

    def set_epoch(self, epoch: int, *, first_step: int = 0) -> None:
        """Go to ``epoch``; its steps before ``first_step`` are left out."""
        self.order.set_epoch(epoch, first=first_step * self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = iter(self.order)
        while len(step := list(islice(draws, self.batch_size))) == self.batch_size:
            yield [step[place] for place in self.places]

    def __len__(self) -> int:
        """Steps of a whole epoch."""
        return len(self.order) // self.batch_size
