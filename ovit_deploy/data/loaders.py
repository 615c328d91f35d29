"""Feeding images: shuffled and augmented for training, in order for everything that is measured."""

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from ovit_deploy.data.order import Draw, EpochOrder, StepDraws
from ovit_deploy.data.preprocessing import Preprocessing
from ovit_deploy.data.randomness import Chance, seed_all
from ovit_deploy.errors import DataError, OvitError
from ovit_deploy.recipe.schema import Training


class ImageLoader(DataLoader[Any]):
    """torch's DataLoader; an image's `OvitError` comes through from a worker as it was raised.

    torch would raise the worker's traceback as a text instead. So a worker hands the error over in the batch's place.
    """

    def __init__(self, dataset: Dataset[Any], batches: Iterable[Any], num_workers: int, **settings: Any) -> None:
        batch_sampler: Any = batches
        super().__init__(
            Caught(dataset), batch_sampler=batch_sampler, num_workers=num_workers, collate_fn=collated, **settings
        )

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if isinstance(batch, OvitError):
                raise batch
            yield batch


class Caught(Dataset[Any]):
    """A data set that gives errors as items."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except OvitError as error:
            return error


def collated(items: list[Any]) -> Any:
    """A batch, or the first error in it."""
    return next((item for item in items if isinstance(item, OvitError)), None) or default_collate(items)


class Transformed(Dataset[Any]):
    """A data set whose images went through ``transform``."""

    def __init__(self, dataset: Dataset[Any], transform: Callable[[Any], Tensor]) -> None:
        self.dataset = dataset
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.dataset[index]
        return self.transform(image), label


class Augmented(Dataset[Any]):
    """Augmented images by their `Draw`: chance depends on the seed, the epoch and the position only."""

    def __init__(self, dataset: Dataset[Any], transform: Callable[[Any], Tensor], seed: int) -> None:
        self.dataset = dataset
        self.transform = transform
        self.seed = seed

    def __getitem__(self, index: Draw) -> tuple[Tensor, int]:
        image, label = self.dataset[index.index]
        seed_all(Chance.IMAGE, self.seed, index.epoch, index.position)
        return self.transform(image), label


def train_loader(
    dataset: Dataset[Any],
    preprocessing: Preprocessing,
    training: Training,
    *,
    rank: int = 0,
    num_ranks: int = 1,
    num_workers: int = 0,
) -> DataLoader[Any]:
    """Augmented images, a rank's share of an optimizer step at a time; see `train_batches`.

    Args:
        dataset: of (image, class index).
        preprocessing: what the model wants to see.
        training: augmentation, images of a step, seed.
        rank: which of the processes this is that share each step.
        num_ranks: how many there are.
        num_workers: processes that prepare images; 0 prepares them in this one. What they give is the same.

    Raises:
        DataError: fewer images than one batch, or a batch that cannot be shared evenly.
    """
    num_images, batch = len(dataset), training.effective_batch_size  # type: ignore[arg-type]
    if num_images < batch:
        raise DataError(
            f"{num_images} training images do not fill one batch of {batch}",
            "lower training.batch_size or accumulation_steps in the recipe",
        )
    unit = num_ranks * (2 if training.augmentation.mixes else 1)
    if num_ranks > 1 and batch % unit:
        pairs = " in pairs, which mixup and cutmix mix" if training.augmentation.mixes else ""
        raise DataError(
            f"the {batch} images of a step cannot be shared evenly by {num_ranks} processes{pairs}",
            f"make batch_size * accumulation_steps a multiple of {unit}, or start another number of processes",
        )
    augmented = Augmented(dataset, preprocessing.train_transform(training.augmentation), training.seed)
    order = EpochOrder(num_images, seed=training.seed, repeats=training.augmentation.repeats)
    draws = StepDraws(order, batch, rank=rank, num_ranks=num_ranks)
    return ImageLoader(augmented, draws, num_workers, persistent_workers=num_workers > 0)


def train_batches(loader: DataLoader[Any], *, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `train_loader` without end, a new order each epoch, from any step on: step alone says what comes."""
    draws = loader.batch_sampler
    assert isinstance(draws, StepDraws)
    epoch, step = divmod(first_step, len(loader))
    for later in count(epoch):
        draws.set_epoch(later, first_step=step if later == epoch else 0)
        yield from loader


def eval_loader(
    dataset: Dataset[Any],
    preprocessing: Preprocessing,
    batch_size: int = 250,
    *,
    rank: int = 0,
    num_ranks: int = 1,
    num_workers: int = 0,
) -> DataLoader[Any]:
    """All images in order, as the model wants them; of several ranks, each gets every ``num_ranks``-th batch."""
    total = len(dataset)  # type: ignore[arg-type]
    starts = range(rank * batch_size, total, num_ranks * batch_size)
    batches = [range(start, min(start + batch_size, total)) for start in starts]
    transformed = Transformed(dataset, preprocessing.eval_transform())
    return ImageLoader(transformed, batches, num_workers)


def calibration_batches(
    dataset: Dataset[Any],
    preprocessing: Preprocessing,
    num_images: int,
    *,
    seed: int,
    batch_size: int = 64,
    num_workers: int = 0,
) -> Callable[[], Iterable[tuple[Tensor, Tensor]]]:
    """A stream of ``num_images`` training images without augmentation: a seeded choice, the same at every call.

    Raises:
        DataError: there are fewer images.
    """
    total = len(dataset)  # type: ignore[arg-type]
    if num_images > total:
        raise DataError(f"{num_images} gradients asked for, {total} training images there", "lower num_grads")
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:num_images].tolist()
    loader = eval_loader(Subset(dataset, chosen), preprocessing, batch_size, num_workers=num_workers)
    return lambda: loader


def sample_images(dataset: Dataset[Any], preprocessing: Preprocessing, num_images: int) -> tuple[Tensor, Tensor]:
    """``num_images`` images spread evenly over the data set (sets are often sorted by class), with their labels."""
    total = len(dataset)  # type: ignore[arg-type]
    indices = torch.linspace(0, total - 1, min(num_images, total)).long().tolist()
    batches = list(eval_loader(Subset(dataset, indices), preprocessing))
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])
