"""The learning rate that a modifier asks for at an epoch."""

import math
from collections.abc import Callable
from itertools import takewhile

from ovit_deploy.recipe.declaration import Modifier
from ovit_deploy.recipe.modifiers import (
    LearningRateFunctionModifier,
    LearningRateModifier,
    SetLearningRateModifier,
    WarmUp,
)
from ovit_deploy.recipe.schedule import Cycle, learning_rate

RateModifier = SetLearningRateModifier | LearningRateFunctionModifier | LearningRateModifier
RATES = (SetLearningRateModifier, LearningRateFunctionModifier, LearningRateModifier)
_ROUNDING = 1e-9


def rate_at(modifier: RateModifier, epoch: float, step: float) -> float:
    """The rate of the step that starts at ``epoch`` and lasts ``step`` epochs; past its end the last value stays."""
    inside = min(epoch, modifier.end_epoch - step) if modifier.end_epoch >= 0 else epoch
    match modifier:
        case SetLearningRateModifier():
            return modifier.learning_rate
        case LearningRateFunctionModifier():
            return _warmed_up(modifier, inside, lambda epoch: _function(modifier, epoch, step))
        case LearningRateModifier():
            return _warmed_up(modifier, inside, lambda epoch: _scheduler(modifier, epoch, step))


def describe(modifier: RateModifier) -> str:
    """A modifier's rate in a few words."""
    told = _describe(modifier)
    warm = isinstance(modifier, WarmUp) and modifier.warmup_epochs > 0
    return f"{told}, {modifier.warmup_epochs:g} epochs of warm-up from {modifier.warmup_lr:g}" if warm else told


def _describe(modifier: RateModifier) -> str:
    match modifier:
        case SetLearningRateModifier():
            return f"{modifier.learning_rate:g}"
        case LearningRateFunctionModifier():
            return f"{modifier.lr_func} {modifier.init_lr:g} to {modifier.final_lr:g} until {modifier.end_epoch:g}"
        case LearningRateModifier():
            until = f" until {modifier.end_epoch:g}" if modifier.end_epoch >= 0 else ""
            return f"{modifier.lr_class} from {modifier.init_lr:g}{until}"


def rates_of(modifiers: tuple[Modifier, ...]) -> tuple[RateModifier, ...]:
    """The modifiers that set the learning rate, by their start."""
    return tuple(sorted((m for m in modifiers if isinstance(m, RATES)), key=lambda rate: rate.start))


def _warmed_up(modifier: WarmUp, inside: float, rate: Callable[[float], float]) -> float:
    """A straight line from ``warmup_lr`` to what ``rate`` is at the end of the warm-up, then ``rate`` itself."""
    done = inside - modifier.start
    if done >= modifier.warmup_epochs - _ROUNDING:
        return rate(inside)
    reached = rate(modifier.start + modifier.warmup_epochs)
    return modifier.warmup_lr + done / modifier.warmup_epochs * (reached - modifier.warmup_lr)


def _function(modifier: LearningRateFunctionModifier, inside: float, step: float) -> float:
    return learning_rate(
        inside - modifier.start,
        initial=modifier.init_lr,
        final=modifier.final_lr,
        shape=modifier.lr_func,
        length=modifier.end_epoch - modifier.start,
        cycle=Cycle(
            modifier.cycle_epochs, modifier.cycle_mul, modifier.warmup, modifier.decay_rate, modifier.decay_epochs
        ),
        step=step,
    )


def _scheduler(modifier: LearningRateModifier, inside: float, step: float) -> float:
    """torch's schedulers with epochs for steps; ExponentialLR decays once an epoch."""
    begun, settings = inside - modifier.start + _ROUNDING, modifier.lr_kwargs
    if modifier.lr_class == "OneCycleLR":
        return _one_cycle(modifier, inside - modifier.start, step)
    if modifier.lr_class == "CosineAnnealingWarmRestarts":
        low, cycle = settings.lr_min, settings.cycle_epochs
        assert low is not None and cycle is not None
        return low + (modifier.init_lr - low) * (1 + math.cos(math.pi * (begun % cycle) / cycle)) / 2
    assert settings.gamma is not None
    if modifier.lr_class == "MultiStepLR":
        passed = takewhile(lambda epoch: epoch <= inside + _ROUNDING, sorted(settings.milestones or ()))
        return modifier.init_lr * settings.gamma ** len(list(passed))
    return modifier.init_lr * settings.gamma ** math.floor(begun / (settings.step_size or 1.0))


def _one_cycle(modifier: LearningRateModifier, begun: float, step: float) -> float:
    """Half a cosine up from ``init_lr`` to ``max_lr``, half a cosine down to ``lr_min`` (Smith, arXiv 1708.07120).

    As torch's OneCycleLR: the peak is the last step of the first ``pct_start``, ``lr_min`` the last step of all.
    """
    peak, low, share = modifier.lr_kwargs.max_lr, modifier.lr_kwargs.lr_min, modifier.lr_kwargs.pct_start
    assert peak is not None and low is not None and share is not None
    length = modifier.end_epoch - modifier.start
    rise, end = max(share * length - step, 0.0), length - step
    if begun <= rise and rise > 0:
        first, last, x = modifier.init_lr, peak, begun / rise
    else:
        first, last, x = peak, low, (begun - rise) / max(end - rise, _ROUNDING)
    return last + (first - last) * (1 + math.cos(math.pi * min(x, 1.0))) / 2
