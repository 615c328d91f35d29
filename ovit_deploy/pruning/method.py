"""What every pruning method takes and gives."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ovit_deploy.device import free_memory
from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.loss import HARD, Loss
from ovit_deploy.pruning.ranks import ALONE, Ranks
from ovit_deploy.pruning.shelf import NOWHERE, Shelf

Masks = Mapping[str, Tensor]
Report = Callable[[str], None]
STANDARDIZED = frozenset({"StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame"})  # timm's classes


@dataclass(frozen=True)
class Calibration:
    """The images a method may look at, and how it takes gradients of them.

    Args:
        batches: Opens a fresh stream of (images, labels). Methods pass over it several times, so every call must give
            the same samples: no random augmentation, no shuffling anew.
        num_samples: How many images one pass gives.
        loss: Whose gradients are taken.
        images_per_gradient: n; one gradient is that of the mean loss of n images that follow one another. The papers'
            code takes batches; 1 is the per-sample gradient of their formulas.
        ranks: The processes that share the images; each is given the whole stream.
        shelf: Where long work is kept until it is done, for a process that begins the same pruning again.
    """

    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    num_samples: int
    loss: Loss = HARD
    images_per_gradient: int = 1
    ranks: Ranks = ALONE
    shelf: Shelf = NOWHERE

    def __post_init__(self) -> None:
        if self.images_per_gradient < 1:
            raise PruningError(f"images_per_gradient is {self.images_per_gradient}, but at least 1 is needed")

    @property
    def num_gradients(self) -> int:
        """How many gradients one pass gives."""
        return self.num_samples // self.images_per_gradient

    def at_most(self, num_images: int | None) -> "Calibration":
        """The same images, at most so many in a batch; None leaves the batches as they are."""
        if num_images is None:
            return self

        def smaller() -> Iterator[tuple[Tensor, Tensor]]:
            for images, labels in self.batches():
                yield from zip(images.split(num_images), labels.split(num_images), strict=True)

        return replace(self, batches=smaller)


def budget_for(model: nn.Module, memory_budget: int | None) -> int:
    """Bytes that pruning may use: ``memory_budget``, else half of what is free where the model's weights are."""
    return free_memory(next(model.parameters()).device) // 2 if memory_budget is None else memory_budget


@dataclass(frozen=True)
class Pruned:
    """A method's answer. The model itself is not changed until :func:`apply`.

    Args:
        masks: True where a weight is kept, shaped like the weight.
        weights: New values, exact zeros where pruned.
        predicted_loss: Predicted increase of the loss, ``sum_b 1/2 d_b^T F_b d_b``; None if the method predicts none.
        details: What happened on the way (gradients, jitter, seconds, passes, bytes), for the run's record.
    """

    masks: dict[str, Tensor]
    weights: dict[str, Tensor]
    predicted_loss: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def loss_before(self) -> float | None:
        """Mean loss of the calibration samples before anything was pruned; None if the method did not meet it."""
        first, *_ = self.details.get("pieces", [self.details])
        return first.get("calibration_loss")


class Method(Protocol):
    """A pruning method: settings in the fields of a frozen dataclass, one verb."""

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """Choose what to prune.

        Args:
            model: Its present weights are where pruning starts. It is left as it was found.
            masks: The targets, by the name of their weight, and which of their weights are kept at present (True).
            sparsity: Fraction of zeros wanted over all targets together, those that are there already included.
            calibration: Training images; methods that look at weights only take None.
            report: Called with a line of text as the work goes on.

        Raises:
            PruningError: The sparsity cannot be had, or a target cannot be treated by this method.
        """
        ...


def apply(model: nn.Module, pruned: Pruned) -> None:
    """Copy the new weights into the model, in place: tied weights, optimizers and wrappers keep their tensors."""
    write(model, pruned.weights)


def write(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the model, in place."""
    for name, weight in weights.items():
        model.get_parameter(name).data.copy_(weight)


def target_weights(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """Copies of the present values of the targets, row-major even in a channels-last model.

    Raises:
        PruningError: No target at all, or one that is no parameter, is tied or standardised, or does not fit its mask.
    """
    if not masks:
        raise PruningError("nothing to prune: no target weights", "check the targets of the recipe")
    parameters = dict(model.named_parameters(remove_duplicate=False))
    uses = Counter(id(parameter) for parameter in parameters.values())
    for name, mask in masks.items():
        if name not in parameters:
            raise PruningError(f"{name} is not a parameter of the model", "check the targets of the recipe")
        if uses[id(parameters[name])] > 1:
            twins = [other for other, parameter in parameters.items() if parameter is parameters[name]]
            raise PruningError(f"{' and '.join(twins)} are one tied weight", "leave it out of the targets")
        kind = type(model.get_submodule(name.rpartition(".")[0])).__name__
        if kind in STANDARDIZED:
            raise PruningError(
                f"{name} is standardised by its {kind}: less the mean of its row, a zero is no zero any more",
                "leave it out of the targets: what meets the inputs would stay dense",
            )
        if mask.shape != parameters[name].shape:
            raise PruningError(
                f"the mask of {name} has shape {tuple(mask.shape)}, its weight {tuple(parameters[name].shape)}"
            )
        if bool(parameters[name].detach()[~mask.to(parameters[name].device)].any()):
            raise PruningError(
                f"{name} has weights that are pruned by its mask but not zero",
                "training after pruning must keep the zeros",
            )
    row_major = torch.contiguous_format
    return {name: parameters[name].detach().clone(memory_format=row_major) for name in masks}


def num_zeros(masks: Masks, sparsity: float) -> int:
    """``round(sparsity * total)``: the zeros over all targets that a sparsity means.

    Raises:
        PruningError: The sparsity is outside [0, 1), or there are more zeros already.
    """
    if not 0 <= sparsity < 1:
        raise PruningError(f"sparsity {sparsity} is not in [0, 1)", "give the fraction of zeros, such as 0.75")
    total = sum(mask.numel() for mask in masks.values())
    present = total - sum(int(mask.sum()) for mask in masks.values())
    wanted = round(sparsity * total)
    if wanted < present:
        raise PruningError(
            f"sparsity {sparsity} asks for {wanted} zeros, but {present} of {total} weights are pruned already",
            f"sparsity can only grow: ask for at least {present / total:.4f}",
        )
    return wanted
