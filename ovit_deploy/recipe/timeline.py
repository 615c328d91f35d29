"""Recipe -> dated actions: *when* is pure data, computed before training and testable without a model."""

from dataclasses import dataclass, field
from math import cos, pi

from ovit_deploy.recipe.declaration import Modifier
from ovit_deploy.recipe.dynamic import ACDCPruningModifier, MovementPruningModifier, RigLPruningModifier
from ovit_deploy.recipe.modifiers import (
    ConstantPruningModifier,
    DistillationModifier,
    EpochRangeModifier,
    SetWeightDecayModifier,
    TrainableParamsModifier,
)
from ovit_deploy.recipe.pruners import PruningModifier
from ovit_deploy.recipe.rates import RateModifier, rate_at, rates_of
from ovit_deploy.recipe.schedule import interpolate, update_epochs
from ovit_deploy.recipe.schema import Recipe
from ovit_deploy.recipe.sparsifier import Sparsifier

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Prune:
    """Bring the modifier's targets to ``sparsity``.

    ``grown`` is how much of the way from the first to the final sparsity is done then: what counts where the first
    is ``__FROM_PARAM__``, which only the model knows.
    """

    modifier: Sparsifier
    sparsity: float
    place: str
    grown: float = 1.0


@dataclass(frozen=True)
class Score:
    """Add up movement scores of the modifier's targets from here on."""

    modifier: MovementPruningModifier
    place: str


@dataclass(frozen=True)
class Densify:
    """Let the modifier's targets grow dense again, but for what was pruned before it started."""

    modifier: ACDCPruningModifier
    place: str


@dataclass(frozen=True)
class Regrow:
    """Exchange ``fraction`` of the kept weights of the modifier's targets for pruned ones, by ``num_images`` images."""

    modifier: RigLPruningModifier
    place: str
    fraction: float
    num_images: int


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


Action = Prune | Score | Densify | Regrow | HoldZeros | WeightDecay | Distill | Train


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

    def past(self, epoch: float, step: float, *, including: bool) -> list[Action]:
        """The actions of the steps before the one that starts at ``epoch``; ``including`` its own."""
        end = epoch + step / 2 if including else epoch - step / 2
        return [item.action for item in self.dated if -step / 2 <= item.epoch < end]

    @property
    def final_sparsity(self) -> float | None:
        """What the last pruning asks for."""
        asked = [item.action.sparsity for item in self.dated if isinstance(item.action, Prune)]
        return asked[-1] if asked else None


def timeline(recipe: Recipe) -> Timeline:
    """The dated actions of ``recipe``.

    Training lasts to the largest end of an `EpochRangeModifier`, else to the last modifier's end. At one epoch,
    settings come before pruning, and among equals the file's order holds.
    """
    pairs = list(zip(recipe.modifiers, recipe.places, strict=True))
    dated = [item for modifier, place in pairs for item in _dated(modifier, place, recipe.training.batch_size)]
    ranges = [m.end_epoch for m in recipe.modifiers if isinstance(m, EpochRangeModifier)]
    num_epochs = max(ranges or [max((m.end_epoch for m in recipe.modifiers), default=0.0), 0.0])
    return Timeline(
        num_epochs=num_epochs,
        dated=tuple(sorted(dated, key=lambda item: (item.epoch, isinstance(item.action, Prune)))),
        rates=rates_of(recipe.modifiers),
        default_rate=recipe.training.learning_rate,
    )


def _dated(modifier: Modifier, place: str, batch_size: int) -> list[Dated]:
    match modifier:
        case PruningModifier():
            scored = [Dated(0.0, Score(modifier, place))] if isinstance(modifier, MovementPruningModifier) else []
            return [*scored, *(Dated(epoch, _prune(modifier, place, grown)) for epoch, grown in _prunings(modifier))]
        case ACDCPruningModifier():
            return _turns(modifier, place)
        case RigLPruningModifier():
            return _exchanges(modifier, place, batch_size)
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
    return []


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


def _turns(modifier: ACDCPruningModifier, place: str) -> list[Dated]:
    """Dense at the start, then compressed and dense by turns; compressed for at least the last update period."""
    start, end, every = modifier.start_epoch, modifier.end_epoch, modifier.update_frequency
    turns: list[Dated] = []
    for turn, epoch in enumerate(update_epochs(start, end, every)):
        dense = turn % 2 == 0 and epoch < end - every - _ROUNDING
        action = Densify(modifier, place) if dense else Prune(modifier, modifier.compression_sparsity, place)
        if not turns or type(turns[-1].action) is not type(action):
            turns.append(Dated(epoch, action))
    return turns


def _exchanges(modifier: RigLPruningModifier, place: str, batch_size: int) -> list[Dated]:
    """Sparse at the start; then a fraction that falls to nothing at the end is exchanged (RigL, section 3, 2)."""
    start, end, images = modifier.start_epoch, modifier.end_epoch, modifier.num_grads * batch_size
    first, *updates = update_epochs(start, end, modifier.update_frequency)
    dated = [Dated(first, Prune(modifier, modifier.final_sparsity, place))]
    for epoch in updates[:-1]:
        fraction = modifier.init_update_fraction / 2 * (1 + cos(pi * (epoch - start) / (end - start)))
        dated.append(Dated(epoch, Regrow(modifier, place, fraction, images)))
    return dated
