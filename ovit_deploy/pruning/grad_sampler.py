"""Calibration samples from SparseML's ``grad_sampler``: how its training scripts hand data to second-order pruners.

    {"data_loader_builder": fn(kwargs) -> iterable, "loss_function": fn(outputs, targets) -> loss}

The iterable gives ``(forward_args, forward_kwargs, targets)``. SparseML takes one gradient a batch, this package one
a sample: ``num_grads`` counts samples here. The gradients are those of the cross-entropy, so ``loss_function`` must be
that.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.method import Calibration

_KEYS = ("data_loader_builder", "loss_function")
_TOLERANCE = 1e-4


def check_grad_sampler(sampler: object) -> Mapping[str, Callable[..., Any]]:
    """``sampler`` itself, once it is known to have what SparseML's has.

    Raises:
        PruningError: It lacks something.
    """
    if not isinstance(sampler, Mapping) or not all(callable(sampler.get(key)) for key in _KEYS):
        raise PruningError(
            "this recipe prunes with gradients, and there are no samples to take them from",
            "pass grad_sampler={'data_loader_builder': fn, 'loss_function': fn} to modify, initialize or apply",
        )
    return sampler


def calibration_from(
    sampler: Mapping[str, Callable[..., Any]],
    model: nn.Module,
    num_samples: int,
    kwargs: Mapping[str, Any] | None = None,
) -> Calibration:
    """The first ``num_samples`` samples of a newly built loader, held in memory, as each pass must see the same.

    Args:
        sampler: As `check_grad_sampler` wants it.
        model: Its outputs tell whether ``loss_function`` is the cross-entropy.
        num_samples: How many.
        kwargs: For ``data_loader_builder``: a recipe's ``grad_sampler_kwargs``.

    Raises:
        PruningError: There are fewer samples, they are no (images, class indices), or the loss is another.
    """
    batches = list(_first(_pairs(sampler["data_loader_builder"](dict(kwargs or {}))), num_samples))
    found = sum(len(images) for images, _ in batches)
    if found < num_samples:
        raise PruningError(
            f"the grad_sampler gave {found} samples, the recipe asks for num_grads {num_samples}",
            "lower num_grads: it counts samples, not batches as in SparseML; or build a larger loader",
        )
    _check_loss(sampler["loss_function"], model, *batches[0])
    return Calibration(lambda: iter(batches), num_samples)


def _pairs(loader: object) -> Iterator[tuple[Tensor, Tensor]]:
    opened = loader() if callable(loader) else loader
    assert isinstance(opened, Iterable)
    for item in opened:
        match item:
            case ([Tensor() as images], {}, Tensor() as labels) if not item[1]:
                yield images, labels
            case _:
                raise PruningError(
                    "the grad_sampler gives samples that are not ([images], {}, class indices)",
                    "oViT prunes image classifiers: one tensor in, one tensor of labels out",
                )


def _first(batches: Iterable[tuple[Tensor, Tensor]], num_samples: int) -> Iterator[tuple[Tensor, Tensor]]:
    left = num_samples
    for images, labels in batches:
        yield images[:left], labels[:left]
        left -= len(images)
        if left <= 0:
            return


@torch.no_grad()
def _check_loss(loss_function: Callable[[Any, Any], Any], model: nn.Module, images: Tensor, labels: Tensor) -> None:
    device, training = next(model.parameters()).device, model.training
    model.eval()
    outputs, labels = model(images.to(device)), labels.to(device)
    model.train(training)
    asked, ours = float(loss_function(outputs, labels)), float(functional.cross_entropy(outputs, labels))
    if abs(asked - ours) > _TOLERANCE * max(1.0, abs(ours)):
        raise PruningError(
            f"loss_function gives {asked:g} where the cross-entropy is {ours:g}",
            "give grad_sampler torch.nn.functional.cross_entropy: the Fisher matrices are of that loss",
        )
