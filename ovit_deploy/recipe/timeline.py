"""Recipe -> dated actions: *when* is pure data, computed before training and testable without a model."""

from dataclasses import dataclass, field
from typing import Literal

from ovit_deploy.recipe.declaration import Modifier
from ovit_deploy.recipe.modifiers import (
    ConstantPruningModifier,
    DistillationModifier,
    EpochRangeModifier,
    SetWeightDecayModifier,
    TrainableParamsModifier,
)
from ovit_deploy.recipe.pruners import PruningModifier
from ovit_deploy.recipe.quantization import QuantizationModifier
from ovit_deploy.recipe.rates import RateModifier, rate_at, rates_of
from ovit_deploy.recipe.schedule import interpolate, update_epochs
from ovit_deploy.recipe.schema import Recipe


@dataclass(frozen=True)
class Prune:
    """Bring the modifier's targets to ``sparsity``.

    ``grown`` is how much of the way from the first to the final sparsity is done then: what counts where the first
    is ``__FROM_PARAM__``, which only the model knows.
    """

    modifier: PruningModifier
    sparsity: float
    place: str
    grown: float = 1.0


@dataclass(frozen=True)
class HoldZeros:
    """Keep the zeros that the modifier's targets have now."""

    modifier: ConstantPruningModifier
    place: str


@dataclass(frozen=True)
class WeightDecay:
    """Decay by ``value`` from here on."""

    value: float


@dataclass(frozen=True)
class Distill:
    """Learn from the dense model from here on; with no modifier, stop doing so."""

    modifier: DistillationModifier | None


@dataclass(frozen=True)
class Train:
    """Freeze the modifier's targets or let them learn; ``ends`` makes them as they were."""

    modifier: TrainableParamsModifier
    place: str
    ends: bool = False


@dataclass(frozen=True)
class Quantize:
    """Round weights and activations from here on."""

    modifier: QuantizationModifier
    place: str


@dataclass(frozen=True)
class Freeze:
    """Keep what was observed so far: ranges of quantized tensors, or statistics of batch norms."""

    what: Literal["observers", "batch norm"]


Action = Prune | HoldZeros | WeightDecay | Distill | Train | Quantize | Freeze


@dataclass(frozen=True)
class Dated:
    """An action and the epoch at whose first step it happens, before that step's forward pass."""

    epoch: float
    action: Action = field(compare=False)


@dataclass(frozen=True)
class Timeline:
    """All actions of a recipe in order, and its learning rate as a function of the epoch."""

    num_epochs: float
    dated: tuple[Dated, ...]
    rates: tuple[RateModifier, ...]
    default_rate: float

    def learning_rate(self, epoch: float, step: float) -> float:
        """The rate of the step that starts at ``epoch`` and lasts ``step`` epochs.

        The modifier that started last decides; past the end of a function its last value stays.
        """
        begun = [rate for rate in self.rates if rate.start <= epoch + 1e-9]
        return rate_at(begun[-1], epoch, step) if begun else self.default_rate

    def due(self, epoch: float, step: float) -> list[Action]:
        """The actions of the step that starts at ``epoch`` and lasts ``step`` epochs."""
        return [item.action for item in self.dated if epoch - step / 2 <= item.epoch < epoch + step / 2]

    @property
    def final_sparsity(self) -> float | None:
        """What the last pruning asks for."""
        asked = [item.action.sparsity for item in self.dated if isinstance(item.action, Prune)]
        return asked[-1] if asked else None


def timeline(recipe: Recipe) -> Timeline:
    """The dated actions of ``recipe``.

    Training lasts to the largest end of an `EpochRangeModifier`, else to the last modifier's end. At one epoch,
    settings come before pruning, pruning before quantization, and among equals the file's order holds.
    """
    pairs = list(zip(recipe.modifiers, recipe.places, strict=True))
    dated = [item for modifier, place in pairs for item in _dated(modifier, place)]
    ranges = [m.end_epoch for m in recipe.modifiers if isinstance(m, EpochRangeModifier)]
    num_epochs = max(ranges or [max((m.end_epoch for m in recipe.modifiers), default=0.0), 0.0])
    return Timeline(
        num_epochs=num_epochs,
        dated=tuple(sorted(dated, key=lambda item: (item.epoch, _rank(item.action)))),
        rates=rates_of(recipe.modifiers),
        default_rate=recipe.training.learning_rate,
    )


def _rank(action: Action) -> int:
    """Which comes first at one epoch."""
    last = (Prune, Quantize, Freeze)
    return last.index(type(action)) + 1 if isinstance(action, last) else 0


def _dated(modifier: Modifier, place: str) -> list[Dated]:
    match modifier:
        case PruningModifier():
            return [Dated(epoch, _prune(modifier, place, grown)) for epoch, grown in _prunings(modifier)]
        case ConstantPruningModifier():
            return [Dated(modifier.start, HoldZeros(modifier, place))]
        case SetWeightDecayModifier():
            return [Dated(modifier.start, WeightDecay(modifier.weight_decay))]
        case DistillationModifier():
            stop = [Dated(modifier.end_epoch, Distill(None))] if modifier.end_epoch >= 0 else []
            return [Dated(modifier.start, Distill(modifier)), *stop]
        case TrainableParamsModifier():
            stop = [Dated(modifier.end_epoch, Train(modifier, place, ends=True))] if modifier.end_epoch >= 0 else []
            return [Dated(modifier.start, Train(modifier, place)), *stop]
        case QuantizationModifier():
            return [Dated(modifier.start, Quantize(modifier, place)), *_freezings(modifier)]
    return []


def _freezings(modifier: QuantizationModifier) -> list[Dated]:
    observers, batch_norm = modifier.disable_quantization_observer_epoch, modifier.freeze_bn_stats_epoch
    dated = [] if observers is None else [Dated(observers, Freeze("observers"))]
    return dated if batch_norm is None else [*dated, Dated(batch_norm, Freeze("batch norm"))]


def _prunings(modifier: PruningModifier) -> list[tuple[float, float]]:
    """When to prune, and how much of the way from the first to the final sparsity is done then."""
    start, end = modifier.start_epoch, modifier.end_epoch
    if end <= start:
        return [(start, 1.0)]
    return [
        (epoch, interpolate((epoch - start) / (end - start), 0.0, 1.0, modifier.inter_func))
        for epoch in update_epochs(start, end, modifier.update_frequency)
    ]


def _prune(modifier: PruningModifier, place: str, grown: float) -> Prune:
    first, final = modifier.first_sparsity, modifier.final_sparsity
    return Prune(modifier, final if grown == 1 else first + grown * (final - first), place, grown)
