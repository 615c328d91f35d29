"""Whole blocks by what the loss does without them: measured, not predicted.

A block is too large a part for a quadratic model of the loss to tell much about. There are few blocks, so that each can
be left out in turn and the loss of calibration images be taken: greedily, L + (L - 1) + ... passes forward.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.gradients import frozen
from ovit_deploy.pruning.method import Calibration
from ovit_deploy.pruning.samples import mean_over_images, share
from ovit_deploy.pruning.structured import Budget, Removal, Settings
from ovit_deploy.structure import Kept, everything, structure_of


def choose(model: nn.Module, settings: Settings, budget: Budget, calibration: Calibration) -> Removal:
    """Choose which blocks go; the model is left as it was found.

    Raises:
        ModelError: the model is not a VisionTransformer of timm.
        PruningError: the floor keeps more than the budget, or calibration has too few images.
    """
    prices, sizes = budget.prices, {block.number: block for block in structure_of(model).blocks}
    costs = {number: prices.whole_block(block) for number, block in sizes.items()}
    batches = [(images, labels) for _, images, labels in share(calibration, settings.num_grads, {})]
    before = loss = _loss(model, batches, set(), calibration, settings.num_grads)
    gone: set[int] = set()
    while budget.cost - sum(costs[number] for number in gone) > budget.budget:
        left = [number for number in sizes if number not in gone]
        if len(left) <= settings.min_blocks:
            raise PruningError(
                f"min_blocks {settings.min_blocks} keeps more than the budget {budget.budget:,}", "lower final_sparsity"
            )
        loss, number = min(
            (_loss(model, batches, {*gone, number}, calibration, settings.num_grads), number) for number in left
        )
        gone.add(number)
    whole = everything(model)
    kept = Kept(
        {number: heads for number, heads in whole.heads.items() if number not in gone},
        {number: neurons for number, neurons in whole.neurons.items() if number not in gone},
    )
    return Removal(kept, {}, loss - before, {"calibration_loss": before, "num_images": settings.num_grads})


def _loss(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], gone: set[int], calibration: Calibration, num_images: int
) -> float:
    """The mean loss of the images without some blocks."""
    total = 0.0
    with frozen(model), _without(model, gone):
        for images, labels in batches:
            total += float(nn.functional.cross_entropy(model(images), labels, reduction="sum"))
    return mean_over_images(calibration, total, num_images)


@contextmanager
def _without(model: Any, gone: set[int]) -> Iterator[None]:
    whole = dict(model.blocks.named_children())
    try:
        for number in gone:
            delattr(model.blocks, str(number))
        yield
    finally:
        for name in list(dict(model.blocks.named_children())):
            delattr(model.blocks, name)
        for name, block in whole.items():
            model.blocks.add_module(name, block)
