"""RigL: a sparse network whose zeros move while it trains.

Evci et al., arXiv 1911.11134, section 3. With a kept set K and a fraction f at an update::

    drop  the n = floor(f |K|) smallest |w| of K
    grow  the n largest |g| outside what is left of K, g the gradient of the loss where all weights are counted

so that the number of zeros stays. A weight that grows starts at zero; one that is dropped and grown at once keeps its
value, as in the authors' code. Densities of the layers, for a weight with O outputs, I inputs and kernel R x S:

    erdos_renyi_kernel   (O + I + R + S) / (O I R S)  times a constant, at most 1
    erdos_renyi          (O + I) / (O I)              times a constant, at most 1
    uniform              the same everywhere

The paper starts from chance, where any mask is as good; here the largest weights of each layer stay, so that a trained
network may be the start, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.gradients import frozen
from ovit_deploy.pruning.loss import HARD
from ovit_deploy.pruning.magnitude import pruned_to, without_smallest
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report, num_zeros, target_weights
from ovit_deploy.pruning.shares import Line, erk_shares, on_lines, uniform_shares

Strategy = Literal["erdos_renyi_kernel", "erdos_renyi", "uniform"]


@dataclass(frozen=True)
class SparseStart:
    """The largest weights of each layer, as many as a strategy gives it: where RigL starts.

    Args:
        strategy: How the zeros are spread over the layers.
    """

    strategy: Strategy = "erdos_renyi_kernel"

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            raise PruningError(
                f"unknown sparsity strategy {self.strategy!r}", f"choose one of {', '.join(get_args(Strategy))}"
            )

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """See :class:`ovit_deploy.pruning.method.Method`; looks at no images."""
        weights = target_weights(model, masks)
        shares = layer_zeros(masks, num_zeros(masks, sparsity), self.strategy)
        scores = {name: weight.abs().masked_fill(~masks[name], -1) for name, weight in weights.items()}
        return pruned_to(weights, {name: without_smallest(score, shares[name]) for name, score in scores.items()})


def layer_zeros(masks: Masks, total_zeros: int, strategy: Strategy) -> dict[str, int]:
    """Zeros of each target, ``total_zeros`` in all, none below those that are there already.

    Raises:
        PruningError: Zeros that are there already leave no such shares.
    """
    sizes = {name: mask.numel() for name, mask in masks.items()}
    bounds = {name: (sizes[name] - int(mask.sum()), sizes[name]) for name, mask in masks.items()}
    shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
    if strategy == "uniform":
        return uniform_shares(sizes, total_zeros, bounds=bounds)
    if strategy == "erdos_renyi_kernel":
        return erk_shares(shapes, total_zeros, bounds=bounds)
    slopes = {name: Fraction(sizes[name] * sum(shape[:2]), prod(shape[:2])) for name, shape in shapes.items()}
    return on_lines({name: Line(Fraction(sizes[name]), slopes[name], *bounds[name]) for name in sizes}, total_zeros)


def exchange(weights: Masks, masks: Masks, gradients: Masks, *, fraction: float, together: bool) -> dict[str, Tensor]:
    """The masks after an update, with as many zeros as before.

    Args:
        weights: Of the targets, by name.
        masks: What is kept of them now.
        gradients: Of the loss, with respect to all weights, pruned ones too.
        fraction: f, of the kept weights.
        together: The targets are one set: weights may move from one to another. Else each is a set of its own.

    Returns:
        New masks, True where kept.
    """
    assert 0 <= fraction <= 1
    if not together:
        return {name: exchange_one(weights[name], masks[name], gradients[name], fraction) for name in masks}
    weight, mask, gradient = (
        torch.cat([tensors[name].flatten() for name in masks]) for tensors in (weights, masks, gradients)
    )
    parts = exchange_one(weight, mask, gradient, fraction).split([part.numel() for part in masks.values()])
    return {name: part.view_as(masks[name]) for name, part in zip(masks, parts, strict=True)}


def exchange_one(weight: Tensor, mask: Tensor, gradient: Tensor, fraction: float) -> Tensor:
    """The mask of one set of weights after an update; of equals, the first is dropped and the first grows."""
    num = int(fraction * int(mask.sum()))
    staying = mask & without_smallest(weight.abs().masked_fill(~mask, torch.inf), num)
    growing = ~without_smallest((-gradient.abs()).masked_fill(staying, torch.inf), num)
    return staying | growing


def loss_gradients(model: nn.Module, names: Iterable[str], calibration: Calibration) -> dict[str, Tensor]:
    """The gradients of the mean cross-entropy over the calibration images, masks or not; the model is left as it was.

    Raises:
        PruningError: The loss is not finite, or depends on none of the targets.
    """
    parameters = {name: model.get_parameter(name) for name in names}
    totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    with frozen(model):
        for parameter in parameters.values():
            parameter.requires_grad_()
        for images, labels in calibration.batches():
            found = torch.autograd.grad(HARD.summed(model, images, labels), list(parameters.values()))
            for total, gradient in zip(totals.values(), found, strict=True):
                total += gradient / calibration.num_samples
    return totals
