"""Feeding images: shuffled and augmented for training, in order for everything that is measured."""

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ovit_deploy.data.order import Draw, EpochOrder
from ovit_deploy.data.preprocessing import Preprocessing
from ovit_deploy.data.randomness import Chance, seed_all
from ovit_deploy.errors import DataError
from ovit_deploy.recipe.schema import Training


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


def train_loader(dataset: Dataset[Any], preprocessing: Preprocessing, training: Training) -> DataLoader[Any]:
    """Augmented images, a batch an optimizer step, the last incomplete batch dropped; see `train_batches`.

    Raises:
        DataError: fewer images than one batch.
    """
    num_images, batch = len(dataset), training.effective_batch_size  # type: ignore[arg-type]
    if num_images < batch:
        raise DataError(
            f"{num_images} training images do not fill one batch of {batch}",
            "lower training.batch_size or accumulation_steps in the recipe",
        )
    augmented = Augmented(dataset, preprocessing.train_transform(training.augmentation), training.seed)
    order = EpochOrder(num_images, seed=training.seed, repeats=training.augmentation.repeats)
    return DataLoader(augmented, batch, sampler=order, drop_last=True)


def train_batches(loader: DataLoader[Any], *, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `train_loader` without end, a new order each epoch, from any step on: step alone says what comes."""
    order = loader.sampler
    assert isinstance(order, EpochOrder) and loader.batch_size is not None
    epoch, step = divmod(first_step, len(loader))
    for later in count(epoch):
        order.set_epoch(later, first=step * loader.batch_size if later == epoch else 0)
        yield from loader


def eval_loader(dataset: Dataset[Any], preprocessing: Preprocessing, batch_size: int = 250) -> DataLoader[Any]:
    """All images in order, as the model wants them."""
    return DataLoader(Transformed(dataset, preprocessing.eval_transform()), batch_size)


def calibration_batches(
    dataset: Dataset[Any], preprocessing: Preprocessing, num_images: int, *, seed: int, batch_size: int = 64
) -> Callable[[], Iterable[tuple[Tensor, Tensor]]]:
    """A stream of ``num_images`` training images without augmentation: a seeded choice, the same at every call.

    Raises:
        DataError: there are fewer images.
    """
    total = len(dataset)  # type: ignore[arg-type]
    if num_images > total:
        raise DataError(f"{num_images} gradients asked for, {total} training images there", "lower num_grads")
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:num_images].tolist()
    loader = eval_loader(Subset(dataset, chosen), preprocessing, batch_size)
    return lambda: loader


def sample_images(dataset: Dataset[Any], preprocessing: Preprocessing, num_images: int) -> tuple[Tensor, Tensor]:
    """``num_images`` images spread evenly over the data set (sets are often sorted by class), with their labels."""
    total = len(dataset)  # type: ignore[arg-type]
    indices = torch.linspace(0, total - 1, min(num_images, total)).long().tolist()
    batches = list(eval_loader(Subset(dataset, indices), preprocessing))
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])
