"""The learning rate that a modifier asks for at an epoch."""

import math
from itertools import takewhile

from ovit_deploy.recipe.declaration import Modifier
from ovit_deploy.recipe.modifiers import LearningRateFunctionModifier, LearningRateModifier, SetLearningRateModifier
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
            return _function(modifier, inside, step)
        case LearningRateModifier():
            return _scheduler(modifier, inside)


def describe(modifier: RateModifier) -> str:
    """A modifier's rate in a few words."""
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


def _scheduler(modifier: LearningRateModifier, inside: float) -> float:
    """torch's schedulers with epochs for steps; ExponentialLR decays once an epoch."""
    begun, settings = inside - modifier.start + _ROUNDING, modifier.lr_kwargs
    if modifier.lr_class == "CosineAnnealingWarmRestarts":
        low, cycle = settings.lr_min, settings.cycle_epochs
        assert low is not None and cycle is not None
        return low + (modifier.init_lr - low) * (1 + math.cos(math.pi * (begun % cycle) / cycle)) / 2
    assert settings.gamma is not None
    if modifier.lr_class == "MultiStepLR":
        passed = takewhile(lambda epoch: epoch <= inside + _ROUNDING, sorted(settings.milestones or ()))
        return modifier.init_lr * settings.gamma ** len(list(passed))
    return modifier.init_lr * settings.gamma ** math.floor(begun / (settings.step_size or 1.0))
