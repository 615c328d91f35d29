"""Curves over time: how sparsity grows between two epochs, and how a learning rate moves.

Pure functions of the (fractional) epoch; nothing here knows a model.
"""

import math
from collections.abc import Callable
from typing import Literal

Interpolation = Literal["linear", "cubic", "inverse_cubic"]
LearningRateFunction = Literal["linear", "cosine", "cyclic_linear"]

_SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "cubic": lambda x: 1 - (1 - x) ** 3,
    "inverse_cubic": lambda x: 1 - (1 - x) ** (1 / 3),
}


def interpolate(x: float, initial: float, final: float, shape: Interpolation) -> float:
    """The value at ``x`` in [0, 1] (clamped) between ``initial`` and ``final``.

    ``cubic`` is the schedule of Zhu and Gupta (arXiv 1710.01878, equation 1).
    """
    return initial + _SHAPES[shape](min(max(x, 0.0), 1.0)) * (final - initial)


def update_epochs(start: float, end: float, every: float) -> list[float]:
    """Epochs ``start, start + every, ...`` and always ``end``: when a gradual pruner prunes.

    Anchored to ``start``, so a grid that does not divide the range does not drift.
    """
    if end <= start:
        return [start]
    count = math.floor((end - start) / every + 1e-9)
    epochs = [start + k * every for k in range(count + 1)]
    return [*epochs, end] if end - epochs[-1] > 1e-9 else [*epochs[:-1], end]


def learning_rate(
    x: float, *, initial: float, final: float, shape: LearningRateFunction, length: float, cycle: float, step: float
) -> float:
    """The rate ``x`` epochs after a function's start.

    Args:
        x: epochs since the start.
        initial: rate at the start (of each cycle).
        final: rate at the end (of each cycle).
        shape: ``linear`` and ``cosine`` run once over ``length``; ``cyclic_linear`` restarts every ``cycle`` epochs.
        length: epochs from start to end.
        cycle: epochs of one saw tooth.
        step: epochs that one optimizer step lasts; the last step of a cycle gets exactly ``final``
            (oViT, appendix: ``lr(t) = init - (t mod C) / (C - 1) * (init - final)``, t and C in steps).
    """
    if shape == "cyclic_linear":
        position, span = (x + 1e-9) % cycle, max(cycle - step, 1e-12)
    else:
        position, span = x, max(length, 1e-12)
    y = min(max(position / span, 0.0), 1.0)
    if shape == "cosine":
        y = (1 - math.cos(math.pi * y)) / 2
    return initial + y * (final - initial)
