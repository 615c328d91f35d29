"""Feeding images: shuffled and augmented for training, in order for everything that is measured."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ovit_deploy.data.preprocessing import Preprocessing
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


def train_loader(dataset: Dataset[Any], preprocessing: Preprocessing, training: Training) -> DataLoader[Any]:
    """Augmented images in a new random order each epoch; the last incomplete batch is dropped.

    Raises:
        DataError: fewer images than one batch.
    """
    augmented = Transformed(dataset, preprocessing.train_transform(training.augmentation))
    if len(augmented) < training.batch_size:
        raise DataError(
            f"{len(augmented)} training images do not fill one batch of {training.batch_size}",
            "lower training.batch_size in the recipe",
        )
    order = torch.Generator().manual_seed(training.seed)
    return DataLoader(augmented, training.batch_size, shuffle=True, drop_last=True, generator=order)


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
