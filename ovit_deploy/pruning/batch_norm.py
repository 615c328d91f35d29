"""Running statistics of batch norms, taken anew after a pruning.

Zeros change what every layer is fed; a batch norm in evaluation mode still divides by the deviation of the dense
model's activations. So its mean and variance are measured again, averaged over batches of training images that go
through the pruned network, as "Optimal Brain Compression" (Frantar & Alistarh, NeurIPS 2022) does. Weights stay.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

NUM_IMAGES = 512


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Those that keep running statistics."""
    return [norm for norm in model.modules() if isinstance(norm, _BatchNorm) and norm.running_mean is not None]


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> int:
    """Take the running statistics of all batch norms anew, in place; those that are frozen keep theirs.

    Args:
        model: All else in it is in evaluation mode meanwhile.
        batches: Images with labels that are not looked at. All count the same: a smaller one, and what follows, is left
            out.

    Returns:
        How many batch norms have new statistics.
    """
    norms = batch_norms(model)
    if not norms:
        return 0
    before = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    try:
        _feed(model, batches)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
        renewed = [_settle(norm, buffers) for norm, buffers in zip(norms, before, strict=True)]
    return sum(renewed)


def _feed(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    device, size = next(model.parameters()).device, 0
    for images, _ in batches:
        size = size or len(images)
        if len(images) < max(size, 2):  # the variance of one image may not exist
            return
        model(images.to(device))


def _settle(norm: _BatchNorm, before: dict[str, Tensor]) -> bool:
    """Whether the norm has seen a batch; if not, it gets back what it had."""
    count = norm.num_batches_tracked
    seen = count is not None and bool(count)
    if not seen:
        for name, buffer in before.items():
            norm.get_buffer(name).copy_(buffer)
    return seen
