"""Second moments of the inputs of layers: the curvature of layer-wise pruning.

Changing a layer's weight by D changes its outputs by D x for an input x. The mean of their squares over the inputs of
the calibration images is a quadratic form with one matrix for all rows of the weight::

    1/2 mean_t |D x_t|^2 = 1/2 tr(D H D^T),   H = 1/T sum_t x_t x_t^T

A token or an output pixel (whose input is its patch) counts once, a layer that runs several times counts all its runs.
Inputs are those of the whole model as it is, so layers do not depend on each other: one pass over the images serves all
of them, or a few passes where the memory budget does not hold every H. (SparseGPT's and OBC's own scripts go through
the layers in order instead and feed each with the outputs of pruned ones.)

Sums are float64, products within a batch in the precision of the model.

Shape suffixes: T tokens (or pixels), G groups of a convolution, I inputs of a group, O outputs of a group.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.gradients import Layer, frozen, layer_of, tokens
from ovit_deploy.pruning.method import Calibration, Report, budget_for
from ovit_deploy.pruning.samples import take

# Patches of a convolution are unfolded in pieces of about this size.
PATCH_BYTES = 2**26
# What a dead input gets on the diagonal, as a share of the mean of the others.
DEAD = 1e-12

Consume = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Images:
    """The calibration images that a layer-wise method looks at: ``num_samples`` of the stream."""

    calibration: Calibration
    num_samples: int


def images_for(method: str, calibration: Calibration | None, num_samples: int) -> Images:
    """The images a method asks for.

    Raises:
        PruningError: There is no calibration, or too little.
    """
    if calibration is None:
        raise PruningError(f"{method} needs calibration images", "give a calibration stream, or prune by magnitude")
    if calibration.num_samples < num_samples:
        raise PruningError(
            f"{num_samples} samples are wanted, but calibration has only {calibration.num_samples}",
            f"set num_samples to {calibration.num_samples}, or give more samples",
        )
    return Images(calibration, num_samples)


def input_norms(model: nn.Module, names: Iterable[str], images: Images) -> dict[str, Tensor]:
    """Root mean square of each input of each layer, [G, I] in float64: the diagonal of H, without the rest."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def consume(name: str, x_TGI: Tensor) -> None:
        add(sums, counts, name, x_TGI.square().sum(dim=0), len(x_TGI))

    watch_inputs(model, names, images, consume)
    return {name: (finite(name, sums[name]) / counts[name]).sqrt() for name in names}


def input_hessians(
    model: nn.Module,
    names: Sequence[str],
    images: Images,
    *,
    memory_budget: int | None,
    copies: int,
    report: Report,
) -> Iterator[tuple[str, Tensor]]:
    """H of each layer, [G, I, I] in float64, in the order of ``names``.

    Args:
        model: Left as it was found; in eval mode meanwhile.
        names: Weights of ``nn.Linear`` and ``nn.Conv2d`` layers.
        images: What the model looks at.
        memory_budget: Bytes for the H of all layers of a pass, and for work on one; None takes half of the free memory.
        copies: How many more H work on one layer takes.
        report: Told of each pass.

    Raises:
        PruningError: A layer is of another kind, does not run, has inputs that are not finite, or does not fit in the
            budget.
    """
    budget = budget_for(model, memory_budget)
    passes = plan({name: hessian_bytes(layer_of(model, name)) for name in names}, budget, copies)
    for number, group in enumerate(passes, start=1):
        report(f"inputs of {len(group)} layers over {images.num_samples} images, pass {number} of {len(passes)}")
        found = second_moments(model, group, images)
        for name in group:
            yield name, found.pop(name)


def second_moments(model: nn.Module, names: Sequence[str], images: Images) -> dict[str, Tensor]:
    """H of layers in one pass."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def consume(name: str, x_TGI: Tensor) -> None:
        add(sums, counts, name, x_TGI.permute(1, 2, 0) @ x_TGI.transpose(0, 1), len(x_TGI))

    watch_inputs(model, names, images, consume)
    return {name: finite(name, sums[name]).div_(counts[name]) for name in names}


def add(sums: dict[str, Tensor], counts: dict[str, int], name: str, part: Tensor, num_tokens: int) -> None:
    """Add a batch's part to a layer's sum, in float64."""
    if name not in sums:
        sums[name], counts[name] = torch.zeros_like(part, dtype=torch.float64), 0
    sums[name].add_(part)
    counts[name] += num_tokens


def finite(name: str, total: Tensor) -> Tensor:
    """``total``, which must be finite."""
    if not bool(total.isfinite().all()):
        raise PruningError(
            f"the inputs of {name} are not finite",
            "check the checkpoint, and that images are normalised as the model expects",
        )
    return total


def watch_inputs(model: nn.Module, names: Iterable[str], images: Images, consume: Consume) -> None:
    """Run the images through the model; hand over what meets each weight, [T, G, I], as it comes by."""
    layers = {name: layer_of(model, name) for name in names}
    device = next(model.parameters()).device
    seen: set[str] = set()

    def watch(name: str, layer: Layer, args: tuple[Any, ...], output: Tensor) -> None:
        seen.add(name)
        for inputs in pieces(layer, args[0].detach(), output):
            consume(name, tokens(layer, inputs))

    with frozen(model), torch.no_grad(), ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(partial(watch, name)).remove)
        for batch, _ in take(images.calibration.batches(), images.num_samples):
            model(batch.to(device))
    for name in layers:
        if name not in seen:
            raise PruningError(
                f"the layer of {name} did not run: its inputs are not known",
                "leave it out of the targets, or prune it by magnitude",
            )


def pieces(layer: Layer, inputs: Tensor, output: Tensor) -> Sequence[Tensor]:
    """Inputs in pieces whose patches fit in ``PATCH_BYTES``; those of a linear layer are there already."""
    if isinstance(layer, nn.Linear):
        return [inputs]
    patch = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
    bytes_per_sample = output[0, 0].numel() * patch * inputs.element_size()
    return inputs.split(max(1, PATCH_BYTES // bytes_per_sample))


def hessian_bytes(layer: Layer) -> int:
    """Bytes of a layer's H."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return 8 * groups * layer.weight[0].numel() ** 2


def plan(sizes: dict[str, int], budget: int, copies: int) -> list[list[str]]:
    """Layers in order, cut into passes whose H fit in the budget beside the work on one of them."""
    largest = max(sizes, key=lambda name: sizes[name])
    capacity = budget - copies * sizes[largest]
    if sizes[largest] > capacity:
        raise PruningError(
            f"{budget} bytes of memory do not hold the input Hessian of {largest}",
            f"give at least {(copies + 1) * sizes[largest]} bytes",
        )
    passes: list[list[str]] = [[]]
    room = capacity
    for name, size in sizes.items():
        if size > room:
            passes.append([])
            room = capacity
        passes[-1].append(name)
        room -= size
    return passes


def damped(hessian_GII: Tensor, damping: float) -> Tensor:
    """H, or another matrix of second moments, with ``damping`` times its mean diagonal added to its diagonal.

    Inputs that were zero in every image are dead: nothing is known of their weights, so these cost next to nothing, go
    first, and touch no others. (SparseGPT sets them to zero whether they are chosen or not; here the number of zeros
    stays exact.)
    """
    diagonal_GI = hessian_GII.diagonal(dim1=1, dim2=2)
    live_GI = diagonal_GI > 0
    mean_G1 = diagonal_GI.sum(dim=1, keepdim=True) / live_GI.sum(dim=1, keepdim=True).clamp(min=1)
    mean_G1 = mean_G1.masked_fill(mean_G1 == 0, 1)
    return hessian_GII + torch.diag_embed(torch.where(live_GI, damping, DEAD) * mean_G1)


def output_error(change_GOI: Tensor, weight_GOI: Tensor, hessian_GII: Tensor) -> float:
    """``sum_t |D x_t|^2 / sum_t |W x_t|^2``: what a change D does to a layer's outputs, relative to them."""

    def power(matrix_GOI: Tensor) -> float:
        matrix_GOI = matrix_GOI.double()
        return float(((matrix_GOI @ hessian_GII) * matrix_GOI).sum())

    change = power(change_GOI)
    return change / power(weight_GOI) if change else 0.0
