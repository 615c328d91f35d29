"""``compat: sparseml``: at which steps SparseML 1.8.0 updates a modifier, and which learning rate it then sets.

SparseML asks at every step, after the backward pass and before the optimizer's step, which modifiers are ready::

    start    epoch >= start_epoch
    update   epoch >= (epoch of the last update) + update_frequency     so off the grid of steps the dates drift
    end      epoch >= end_epoch, and never again

Our own dates are those of `ovit_deploy.recipe.schedule.update_epochs`. Only functions of numbers here.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from ovit_deploy.recipe.modifiers import LearningRateFunctionModifier, SetLearningRateModifier
from ovit_deploy.recipe.pruners import EVERY_STEP
from ovit_deploy.recipe.rates import RateModifier, rate_at


def epoch_of(step: int, steps_per_epoch: int) -> float:
    """The epoch at which a step starts, rounded as SparseML rounds it."""
    return step // steps_per_epoch + (step % steps_per_epoch) / steps_per_epoch


def first_step(epoch: float, step: float) -> int:
    """The first step that starts at ``epoch`` or later; a step lasts ``step`` epochs."""
    steps_per_epoch = round(1 / step)
    nearby = max(math.floor(epoch * steps_per_epoch) - 1, 0)
    return next(k for k in range(nearby, nearby + 4) if epoch_of(k, steps_per_epoch) >= epoch)


def updates_at(epoch: float, step: float, start: float, end: float, every: float) -> bool:
    """Whether a pruner from ``start`` to ``end`` prunes in the step that starts at ``epoch``; ``every`` -1: in each."""
    now = round(epoch / step)
    if every == EVERY_STEP:
        return first_step(start, step) <= now <= first_step(end, step)
    return now in update_steps(start, end, every, round(1 / step))


@lru_cache(maxsize=256)
def update_steps(start: float, end: float, every: float, steps_per_epoch: int) -> frozenset[int]:
    """The steps at which a pruner prunes; once, where it ends as it starts."""
    step = 1 / steps_per_epoch
    at, ends = first_step(start, step), first_step(end, step)
    steps = {at}
    while at < ends:
        due = first_step(epoch_of(at, steps_per_epoch) + every, step)
        at = min(max(due, at + 1), ends)
        steps.add(at)
    return frozenset(steps)


def learning_rate(rates: Sequence[RateModifier], epoch: float, step: float) -> float | None:
    """The rate after the updates of the step at ``epoch``; None while no modifier has set one.

    Modifiers are updated in the order of their ends ("to the end" comes last), so of two in one step the later counts.
    """
    ordered = sorted(rates, key=lambda rate: (rate.end_epoch if rate.end_epoch >= 0 else math.inf, rate.start))
    written = [(_last_update(rate, epoch, step), rate) for rate in ordered if rate.start <= epoch]
    if not written:
        return None
    newest = max(at for at, _ in written)
    return next(_rate(rate, at, step) for at, rate in reversed(written) if at == newest)


def _last_update(rate: RateModifier, epoch: float, step: float) -> float:
    """The epoch of the last step, up to ``epoch``, in which the modifier sets the rate."""
    last = rate.start if isinstance(rate, SetLearningRateModifier) else rate.end_epoch
    if last < 0:
        return epoch
    return min(epoch, epoch_of(first_step(last, step), round(1 / step)))


def _rate(rate: RateModifier, epoch: float, step: float) -> float:
    if not isinstance(rate, LearningRateFunctionModifier):
        return rate_at(rate, epoch, step)
    start, end, first, final = rate.start, rate.end_epoch, rate.init_lr, rate.final_lr
    x = (epoch - start) / (end - start)
    match rate.lr_func:
        case "linear":
            return first + x * (final - first)
        case "cosine":
            return final + (first - final) * (1 + math.cos(math.pi * x)) / 2
        case "cyclic_linear":
            return _cyclic_linear(rate, epoch, step)
        case _:
            return rate_at(rate, epoch, step)  # not SparseML's


def _cyclic_linear(rate: LearningRateFunctionModifier, epoch: float, step: float) -> float:
    """``init - (t mod C) / (C - 1) * (init - final)`` with t and C in steps; the last cycle is what remains."""
    total, cycle = (rate.end_epoch - rate.start) / step, rate.cycle_epochs / step
    now = (epoch - rate.start) / step
    if now > int(total / cycle) * cycle:
        cycle = total % cycle or cycle
    return rate.init_lr - (now % cycle) / max(cycle - 1, 1.0) * (rate.init_lr - rate.final_lr)
