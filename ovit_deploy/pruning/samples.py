"""One pass over the calibration images: how many, in batches of whole gradients, and this rank's share of them."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.gradients import Consume, sample_gradients
from ovit_deploy.pruning.method import Calibration


def batch_gradients(
    model: nn.Module,
    names: Iterable[str],
    images: Tensor,
    labels: Tensor,
    calibration: Calibration,
    first: int,
    consume: Consume,
) -> float:
    """The gradients of a batch, taken as ``calibration`` says; ``first`` is the number of the first of them."""
    return sample_gradients(
        model,
        names,
        images,
        labels,
        consume=consume,
        loss=calibration.loss,
        first=first * calibration.images_per_gradient,
        images_per_gradient=calibration.images_per_gradient,
    )


def mean_over_images(calibration: Calibration, total_loss: Tensor | float, num_grads: int) -> float:
    """The mean loss per image of the images of all ranks, from the sum over those of this one."""
    (total,) = calibration.ranks.totals(float(total_loss))
    return total / (num_grads * calibration.images_per_gradient)


def share(calibration: Calibration, num_grads: int, sums: Mapping[str, Tensor]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """This rank's batches, each of whole gradients: the number of its first gradient in the stream, images, labels.

    Args:
        calibration: The stream.
        num_grads: How many gradients.
        sums: All that the caller adds batches to, zeros at first. They are kept while the pass goes on; of a pass that
            was cut off they are taken up, and the batches left out that are in them.

    Raises:
        PruningError: The stream ends before ``num_grads`` gradients.
    """
    size, first, shelf = calibration.images_per_gradient, 0, calibration.shelf
    part = f"pass {calibration.ranks.rank}"
    done = (shelf.get(part, sums) or {"batches": 0})["batches"]
    batches = whole(take(calibration.batches(), num_grads * size), size)
    for number, (images, labels) in enumerate(batches):
        if calibration.ranks.owns(number) and number >= done:
            yield first, images, labels
            if shelf.is_due:
                shelf.put(part, sums, {"batches": number + 1})
        first += len(images) // size


def take(batches: Iterable[tuple[Tensor, Tensor]], num_samples: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches up to exactly ``num_samples`` samples.

    Raises:
        PruningError: The stream ends before.
    """
    missing = num_samples
    for images, labels in batches:
        yield images[:missing], labels[:missing]
        missing -= min(missing, len(images))
        if missing == 0:
            return
    raise too_few(num_samples - missing, num_samples)


def whole(batches: Iterable[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same samples in batches of multiples of ``size``, which divides their number."""
    rest: tuple[Tensor, Tensor] | None = None
    for images, labels in batches:
        if rest is not None:
            images, labels = torch.cat([rest[0], images]), torch.cat([rest[1], labels])
        cut = len(images) // size * size
        rest = (images[cut:], labels[cut:]) if cut < len(images) else None
        if cut > 0:
            yield images[:cut], labels[:cut]
    assert rest is None


def too_few(num_samples: int, num_grads: int, images_per_gradient: int = 1) -> PruningError:
    """The error of a calibration set that is too small."""
    of_each = f" of {images_per_gradient} images each" if images_per_gradient > 1 else ""
    return PruningError(
        f"{num_grads} gradients{of_each} are wanted, but calibration has only {num_samples} samples",
        f"set num_grads to {num_samples // images_per_gradient}, or give more samples",
    )
