"""Observers: from what was seen of a tensor to the range that its integers cover.

================  ======================================================  =====================
observer          range of one batch                                      over batches
================  ======================================================  =====================
min_max           smallest and largest value                              the widest
moving_average    smallest and largest value                              moving average (0.01)
percentile        quantiles 0.0001 and 0.9999                             moving average (0.01)
mse               the shrunk range that rounds with least squared error   moving average (0.01)
================  ======================================================  =====================

Shape suffixes: C channels (1 where a tensor has one scale), N values of a channel.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

AVERAGING = 0.01
QUANTILE = 0.9999
NUM_SHRINKS = 50
SAMPLE = 100_000  # values of a channel that quantiles and errors are taken of

Range = tuple[Tensor, Tensor]
Rounding = Callable[[Tensor, Tensor, Tensor], Tensor]  # values [C, N], low [C], high [C] -> rounded values


@dataclass(frozen=True)
class Observer:
    """How the range of a batch is found, and how it is merged with the range so far."""

    of_batch: Callable[[Tensor, Rounding], Range]
    merge: Callable[[Range, Range], Range]


def extremes(x_CN: Tensor, _: Rounding) -> Range:
    """The smallest and the largest value of each channel."""
    low_C, high_C = torch.aminmax(x_CN, dim=1)
    return low_C, high_C


def quantiles(x_CN: Tensor, _: Rounding) -> Range:
    """The values that all but a ten-thousandth of a channel are above, and below."""
    levels = torch.tensor([1 - QUANTILE, QUANTILE], dtype=x_CN.dtype, device=x_CN.device)
    low_C, high_C = torch.quantile(_sample(x_CN), levels, dim=1)
    return low_C, high_C


def least_error(x_CN: Tensor, rounding: Rounding) -> Range:
    """The range, of 50 shrunk evenly from the extremes, whose rounding has the least squared error, by channel."""
    x_CN = _sample(x_CN)
    low_C, high_C = extremes(x_CN, rounding)
    best_C, least_C = torch.ones_like(low_C), torch.full_like(low_C, torch.inf)
    for step in range(NUM_SHRINKS, 0, -1):
        share = step / NUM_SHRINKS
        error_C = (rounding(x_CN, low_C * share, high_C * share) - x_CN).square().mean(dim=1)
        better_C = error_C < least_C
        best_C[better_C], least_C = share, torch.minimum(error_C, least_C)
    return low_C * best_C, high_C * best_C


def widest(seen: Range, new: Range) -> Range:
    """A range that covers both."""
    return torch.minimum(seen[0], new[0]), torch.maximum(seen[1], new[1])


def averaged(seen: Range, new: Range) -> Range:
    """The range so far, moved by a hundredth of the way to the new one."""
    return torch.lerp(seen[0], new[0], AVERAGING), torch.lerp(seen[1], new[1], AVERAGING)


OBSERVERS = {
    "min_max": Observer(extremes, widest),
    "moving_average": Observer(extremes, averaged),
    "percentile": Observer(quantiles, averaged),
    "mse": Observer(least_error, averaged),
}


def _sample(x_CN: Tensor) -> Tensor:
    """Evenly spaced values of each channel where there are too many."""
    return x_CN[:, :: -(-x_CN.shape[1] // SAMPLE)]
