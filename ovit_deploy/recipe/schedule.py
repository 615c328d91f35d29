"""Curves over time: how sparsity grows between two epochs, and how a learning rate moves.

Pure functions of the (fractional) epoch; nothing here knows a model.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Interpolation = Literal["linear", "cubic", "inverse_cubic"]
LearningRateFunction = Literal[
    "linear", "cosine", "cyclic_linear", "cyclic_cosine", "cyclic_exponential", "cyclic_step"
]

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


@dataclass(frozen=True)
class Cycle:
    """Saw teeth of a learning rate, all in epochs.

    Each cycle's peak is ``multiplier`` times the one before; it is reached after ``warmup``. Exponential and step
    decay multiply by ``decay_rate`` every ``decay_epochs``, down to the final rate.
    """

    epochs: float
    multiplier: float = 1.0
    warmup: float = 0.0
    decay_rate: float = 0.9
    decay_epochs: float = 1.0


def learning_rate(
    x: float, *, initial: float, final: float, shape: LearningRateFunction, length: float, cycle: Cycle, step: float
) -> float:
    """The rate ``x`` epochs after a function's start.

    Args:
        x: epochs since the start.
        initial: rate at the start (of each cycle).
        final: rate at the end (of each cycle).
        shape: ``linear`` and ``cosine`` run once over ``length``; ``cyclic_...`` restarts every cycle.
        length: epochs from start to end.
        cycle: the saw teeth of ``cyclic_...``; where they do not divide ``length``, the last one is shorter.
        step: epochs that one optimizer step lasts; the last step of a cycle, and of ``linear`` and ``cosine``, gets
            exactly ``final`` (oViT, appendix: ``lr(t) = init - (t mod C) / (C - 1) * (init - final)``, t and C in
            steps).
    """
    if not shape.startswith("cyclic_"):
        return _between(x / max(length - step, 1e-12), initial, final, shape)
    number, position = divmod(x + 1e-9, cycle.epochs)
    span = min(cycle.epochs, length - number * cycle.epochs)
    peak = cycle.multiplier**number * (min((position + 1e-9) / cycle.warmup, 1.0) if cycle.warmup else 1.0)
    if shape in ("cyclic_exponential", "cyclic_step"):
        decays = position / cycle.decay_epochs
        decays = math.floor(decays + 1e-9) if shape == "cyclic_step" else decays
        return peak * max(initial * cycle.decay_rate**decays, final)
    return peak * _between(position / max(span - step, 1e-12), initial, final, shape.removeprefix("cyclic_"))


def _between(x: float, initial: float, final: float, shape: str) -> float:
    y = min(max(x, 0.0), 1.0)
    if shape == "cosine":
        y = (1 - math.cos(math.pi * y)) / 2
    return initial + y * (final - initial)
