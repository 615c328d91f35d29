"""Recipe -> dated actions: *when* is pure data, computed before training and testable without a model."""

from dataclasses import dataclass, field
from math import cos, inf, pi
from typing import Literal

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe import sparseml
from ovit_deploy.recipe.declaration import Compat, Modifier
from ovit_deploy.recipe.dynamic import ACDCPruningModifier, MovementPruningModifier, RigLPruningModifier
from ovit_deploy.recipe.filters import LayerThinningModifier, StructuredPruningModifier
from ovit_deploy.recipe.merging import TokenMergingModifier
from ovit_deploy.recipe.modifiers import (
    ConstantPruningModifier,
    DistillationModifier,
    EpochRangeModifier,
    PerLayerDistillationModifier,
    SetWeightDecayModifier,
    TrainableParamsModifier,
)
from ovit_deploy.recipe.parameters import GradualParamModifier, SetParamModifier, SparsificationLoggingModifier
from ovit_deploy.recipe.pruners import EVERY_STEP, PruningModifier
from ovit_deploy.recipe.quantization import QuantizationModifier
from ovit_deploy.recipe.rates import RateModifier, rate_at, rates_of
from ovit_deploy.recipe.schedule import interpolate, update_epochs
from ovit_deploy.recipe.schema import Recipe
from ovit_deploy.recipe.sparsifier import Sparsifier
from ovit_deploy.recipe.structured import StructuredModifier

_ROUNDING = 1e-9
_OTHER_STEPS = (
    ACDCPruningModifier,
    MovementPruningModifier,
    RigLPruningModifier,
    StructuredModifier,
    StructuredPruningModifier,
    LayerThinningModifier,
    TokenMergingModifier,
)


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
class Thin:
    """Remove parts of the model until ``sparsity`` of what its modifier counts is gone."""

    modifier: StructuredModifier
    sparsity: float
    place: str


@dataclass(frozen=True)
class ThinLayers:
    """Remove filters or channels of zeros."""

    modifier: LayerThinningModifier
    place: str


@dataclass(frozen=True)
class MergeTokens:
    """Merge tokens in each block from here on."""

    modifier: TokenMergingModifier


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

    modifier: DistillationModifier | PerLayerDistillationModifier | None


@dataclass(frozen=True)
class Train:
    """Freeze the modifier's targets or let them learn; ``ends`` makes them as they were."""

    modifier: TrainableParamsModifier
    place: str
    ends: bool = False


@dataclass(frozen=True)
class SetParameters:
    """Set the modifier's targets to a number, or to as many as they have."""

    value: float | tuple[float, ...]
    place: str


@dataclass(frozen=True)
class LogSparsity:
    """Write down how sparse every matrix is."""


@dataclass(frozen=True)
class Quantize:
    """Round weights and activations from here on."""

    modifier: QuantizationModifier
    place: str


@dataclass(frozen=True)
class Freeze:
    """Keep what was observed so far: ranges of quantized tensors, or statistics of batch norms."""

    what: Literal["observers", "batch norm"]


Remove = Thin | ThinLayers
Action = (
    Prune
    | Remove
    | MergeTokens
    | Score
    | Densify
    | Regrow
    | HoldZeros
    | WeightDecay
    | Distill
    | Train
    | SetParameters
    | LogSparsity
    | Quantize
    | Freeze
)


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
    pruners: tuple[tuple[PruningModifier, str], ...] = ()
    loggers: tuple[SparsificationLoggingModifier, ...] = ()
    compat: Compat | None = None

    def learning_rate(self, epoch: float, step: float) -> float:
        """The rate of the step that starts at ``epoch`` and lasts ``step`` epochs.

        The modifier that started last decides; past the end of a function its last value stays.
        """
        if self.compat == "sparseml":
            rate = sparseml.learning_rate(self.rates, epoch, step)
            return self.default_rate if rate is None else rate
        begun = [rate for rate in self.rates if rate.start <= epoch + 1e-9]
        return rate_at(begun[-1], epoch, step) if begun else self.default_rate

    def due(self, epoch: float, step: float) -> list[Action]:
        """The actions of the step that starts at ``epoch`` and lasts ``step`` epochs."""
        logs = any(logger.is_due(epoch, step) for logger in self.loggers)
        return [*self._due(epoch, step), *([LogSparsity()] if logs else [])]

    def _due(self, epoch: float, step: float) -> list[Action]:
        if self.compat == "sparseml":
            return self._due_in_sparseml(epoch, step)
        due = [item.action for item in self.dated if epoch - step / 2 <= item.epoch < epoch + step / 2]
        return due + [
            _prune_at(epoch, modifier, place)
            for modifier, place in self.pruners
            if modifier.update_frequency == EVERY_STEP
            and modifier.start_epoch + step / 2 < epoch <= modifier.end_epoch - step / 2
        ]

    def _due_in_sparseml(self, epoch: float, step: float) -> list[Action]:
        settings = [item.action for item in self.dated if sparseml.first_step(item.epoch, step) == round(epoch / step)]
        prunings: list[Action] = [
            _prune_at(epoch, modifier, place)
            for modifier, place in self.pruners
            if sparseml.updates_at(epoch, step, modifier.start_epoch, modifier.end_epoch, modifier.update_frequency)
        ]
        return [action for action in settings if not isinstance(action, Prune)] + prunings

    def past(self, epoch: float, step: float, *, including: bool) -> list[Action]:
        """The settings (all but prunings and removals) of the steps before ``epoch``'s; ``including`` its own."""
        settings = [item for item in self.dated if not isinstance(item.action, Prune | Remove)]
        if self.compat == "sparseml":
            end = round(epoch / step) + including
            return [item.action for item in settings if sparseml.first_step(item.epoch, step) < end]
        until = epoch + step / 2 if including else epoch - step / 2
        return [item.action for item in settings if -step / 2 <= item.epoch < until]

    @property
    def final_sparsity(self) -> float | None:
        """What the last pruning asks for."""
        asked = [item.action.sparsity for item in self.dated if isinstance(item.action, Prune)]
        return asked[-1] if asked else None


def timeline(recipe: Recipe) -> Timeline:
    """The dated actions of ``recipe``.

    Training lasts to the largest end of an `EpochRangeModifier`, else to the last modifier's end. At one epoch,
    settings come before removals, those before pruning, pruning before the removal of zeros, that before quantization,
    and among equals the file's order holds.

    Raises:
        RecipeError: ``compat: sparseml`` is asked for, and a modifier follows other steps than SparseML's; or parts are
            removed after quantization.
    """
    pairs = list(zip(recipe.modifiers, recipe.places, strict=True))
    for modifier, place in pairs:
        if recipe.compat == "sparseml" and isinstance(modifier, _OTHER_STEPS):
            name = type(modifier).__name__
            raise RecipeError(f"{place}: {name} does not follow SparseML's steps", "remove compat: sparseml")
    batch = recipe.training.effective_batch_size
    dated = [item for modifier, place in pairs for item in _dated(modifier, place, batch)]
    _check_removals(dated)
    ranges = [m.end_epoch for m in recipe.modifiers if isinstance(m, EpochRangeModifier)]
    num_epochs = max(ranges or [max((m.end_epoch for m in recipe.modifiers), default=0.0), 0.0])
    return Timeline(
        num_epochs=num_epochs,
        dated=tuple(sorted(dated, key=lambda item: (item.epoch, _rank(item.action)))),
        rates=rates_of(recipe.modifiers),
        default_rate=recipe.training.learning_rate,
        pruners=tuple((modifier, place) for modifier, place in pairs if isinstance(modifier, PruningModifier)),
        loggers=tuple(modifier for modifier, _ in pairs if isinstance(modifier, SparsificationLoggingModifier)),
        compat=recipe.compat,
    )


def _check_removals(dated: list[Dated]) -> None:
    quantized = min((item.epoch for item in dated if isinstance(item.action, Quantize)), default=inf)
    for item in dated:
        if isinstance(item.action, Remove) and item.epoch > quantized:
            raise RecipeError(
                f"{item.action.place}: removes parts at epoch {item.epoch:g}, quantized from epoch {quantized:g} on",
                "remove first, then quantize",
            )


def _rank(action: Action) -> int:
    """Which comes first at one epoch."""
    last = (Thin, MergeTokens, Prune, ThinLayers, Quantize, Freeze)
    return last.index(type(action)) + 1 if isinstance(action, last) else 0


def _dated(modifier: Modifier, place: str, batch_size: int) -> list[Dated]:
    match modifier:
        case PruningModifier():
            scored = [Dated(0.0, Score(modifier, place))] if isinstance(modifier, MovementPruningModifier) else []
            return [*scored, *(Dated(epoch, _prune(modifier, place, grown)) for epoch, grown in _prunings(modifier))]
        case StructuredModifier():
            return [Dated(epoch, Thin(modifier, sparsity, place)) for epoch, sparsity in modifier.dates]
        case LayerThinningModifier():
            return [Dated(epoch, ThinLayers(modifier, place)) for epoch in modifier.dates]
        case TokenMergingModifier():
            return [Dated(modifier.start, MergeTokens(modifier))]
        case ACDCPruningModifier():
            return _turns(modifier, place)
        case RigLPruningModifier():
            return _exchanges(modifier, place, batch_size)
        case ConstantPruningModifier():
            return [Dated(modifier.start, HoldZeros(modifier, place))]
        case SetWeightDecayModifier():
            return [Dated(modifier.start, WeightDecay(modifier.weight_decay))]
        case DistillationModifier() | PerLayerDistillationModifier():
            stop = [Dated(modifier.end_epoch, Distill(None))] if modifier.end_epoch >= 0 else []
            return [Dated(modifier.start, Distill(modifier)), *stop]
        case TrainableParamsModifier():
            stop = [Dated(modifier.end_epoch, Train(modifier, place, ends=True))] if modifier.end_epoch >= 0 else []
            return [Dated(modifier.start, Train(modifier, place)), *stop]
        case SetParamModifier():
            return [Dated(modifier.start, SetParameters(modifier.val, place))]
        case GradualParamModifier():
            return [Dated(epoch, SetParameters(value, place)) for epoch, value in modifier.values]
        case QuantizationModifier():
            return [Dated(modifier.start, Quantize(modifier, place)), *_freezings(modifier)]
    return []


def _freezings(modifier: QuantizationModifier) -> list[Dated]:
    observers, batch_norm = modifier.disable_quantization_observer_epoch, modifier.freeze_bn_stats_epoch
    dated = [] if observers is None else [Dated(observers, Freeze("observers"))]
    return dated if batch_norm is None else [*dated, Dated(batch_norm, Freeze("batch norm"))]


def _prunings(modifier: PruningModifier) -> list[tuple[float, float]]:
    """When to prune, and how much of the way from the first to the final sparsity is done then."""
    start, end, every = modifier.start_epoch, modifier.end_epoch, modifier.update_frequency
    epochs = [start, end] if every == EVERY_STEP and end > start else update_epochs(start, end, every)
    return [(epoch, _grown(epoch, modifier)) for epoch in epochs]


def _grown(epoch: float, modifier: PruningModifier) -> float:
    """How much of the way from the first to the final sparsity is done at ``epoch``."""
    start, end = modifier.start_epoch, modifier.end_epoch
    return interpolate((epoch - start) / (end - start), 0.0, 1.0, modifier.inter_func) if end > start else 1.0


def _prune_at(epoch: float, modifier: PruningModifier, place: str) -> Prune:
    return _prune(modifier, place, _grown(epoch, modifier))


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
