"""A recipe's events in order, for people and for machines: when, at which step, what, to how many weights."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ovit_deploy.recipe.pruners import EVERY_STEP
from ovit_deploy.recipe.rates import RATES, describe
from ovit_deploy.recipe.schema import Recipe
from ovit_deploy.recipe.timeline import (
    Action,
    Densify,
    Distill,
    Freeze,
    HoldZeros,
    LogSparsity,
    MergeTokens,
    Prune,
    Quantize,
    Regrow,
    Score,
    SetParameters,
    Thin,
    ThinLayers,
    Timeline,
    Train,
    WeightDecay,
    timeline,
)
from ovit_deploy.selectors import Shapes

_INSTANT = 1e-9
_FLOAT = 4  # bytes of a weight
Targets = Mapping[str, list[str]]


@dataclass(frozen=True)
class Event:
    """One thing that happens; what only a model or the number of steps tells is None without them."""

    epoch: float
    step: int | None
    stage: str
    action: str
    what: str
    learning_rate: float
    sparsity: float | None = None
    tensors: int | None = None
    weights: int | None = None
    place: str | None = None


@dataclass(frozen=True)
class Size:
    """Weights that the recipe targets, how many of them are left at its end, and the bytes of the run's files.

    ``dense_bytes`` are those of model.safetensors, which holds zeros as it holds other numbers, ``mask_bytes`` those of
    masks.safetensors. ``sparse_bytes`` would hold the kept weights alone, and a bit a weight that says which they are.
    """

    tensors: int
    weights: int
    kept: int
    dense_bytes: int
    mask_bytes: int
    sparse_bytes: int


def events(
    recipe: Recipe, *, steps_per_epoch: int | None = None, targets: Targets | None = None, shapes: Shapes | None = None
) -> list[Event]:
    """Everything that happens, by epoch.

    Args:
        recipe: whose events.
        steps_per_epoch: to date them in steps, too.
        targets: parameter names by the place of their modifier, as `targets.resolve` finds them.
        shapes: the model's, to count weights.
    """
    plan = timeline(recipe)
    teller = _Teller(recipe, plan, steps_per_epoch, targets or {}, shapes or {})
    told = [teller.tell(item.epoch, item.action) for item in plan.dated]
    told += [
        teller.event(modifier.start, "learning rate", describe(modifier), place=place)
        for modifier, place in zip(recipe.modifiers, recipe.places, strict=True)
        if isinstance(modifier, RATES)
    ]
    told += [
        teller.event(logger.start, "log", f"the sparsity of every matrix, every {logger.update_frequency:g} epochs")
        for logger in plan.loggers
    ]
    told.sort(key=lambda event: event.epoch)
    return [*told, teller.event(plan.num_epochs, "end", "")]


@dataclass(frozen=True)
class _Teller:
    """What every event of a plan needs to know."""

    recipe: Recipe
    plan: Timeline
    steps_per_epoch: int | None
    targets: Targets
    shapes: Shapes

    def tell(self, epoch: float, action: Action) -> Event:
        match action:
            case Prune(modifier=modifier, sparsity=sparsity, place=place):
                own = ", from what is zero already" if modifier.starts_from_own and action.grown < 1 else ""
                each = (
                    ", then more at every step" if modifier.update_frequency == EVERY_STEP and action.grown < 1 else ""
                )
                what = f"{modifier.short_name} to {sparsity:.2%}{own}{each}"
                return self.event(epoch, "prune", what, place=place, sparsity=sparsity)
            case Thin(modifier=modifier, sparsity=sparsity, place=place):
                return self.event(epoch, "remove", modifier.describe(sparsity), place=place)
            case ThinLayers(modifier=modifier, place=place):
                return self.event(epoch, "remove", modifier.describe(), place=place)
            case MergeTokens(modifier=modifier):
                return self.event(epoch, "merge", modifier.describe())
            case Score(place=place):
                return self.event(epoch, "score", "how training moves the weights", place=place)
            case Densify(modifier=modifier, place=place):
                return self.event(epoch, "densify", modifier.short_name, place=place, sparsity=0.0)
            case Regrow(modifier=modifier, fraction=fraction, place=place):
                what = f"{modifier.short_name} exchanges {fraction:.2%} of the kept weights"
                return self.event(epoch, "regrow", what, place=place, sparsity=modifier.final_sparsity)
            case HoldZeros(place=place):
                return self.event(epoch, "hold zeros", "that are there", place=place)
            case WeightDecay(value=value):
                return self.event(epoch, "weight decay", f"{value:g}")
            case Distill(modifier=None):
                return self.event(epoch, "distillation", "ends")
            case Distill(modifier=modifier):
                assert modifier is not None
                return self.event(epoch, "distillation", modifier.summary)
            case Train(modifier=modifier, place=place, ends=ends):
                verb = "let learn" if modifier.trainable else "freeze"
                return self.event(epoch, verb, "ends" if ends else "begins", place=place)
            case SetParameters(value=value, place=place):
                what = f"to {value:g}" if isinstance(value, float) else f"to {len(value)} numbers"
                return self.event(epoch, "set", what, place=place)
            case LogSparsity():
                return self.event(epoch, "log", "sparsity of every matrix")
            case Quantize(modifier=modifier, place=place):
                return self.event(epoch, "quantize", modifier.describe(), place=place)
            case Freeze(what=what):
                return self.event(epoch, "freeze", what)

    def event(
        self, epoch: float, action: str, what: str, *, place: str | None = None, sparsity: float | None = None
    ) -> Event:
        names = self.targets.get(place or "")
        return Event(
            epoch=epoch,
            step=None if self.steps_per_epoch is None else round(epoch * self.steps_per_epoch),
            stage=self._stage(place),
            action=action,
            what=what,
            learning_rate=self.plan.learning_rate(epoch, self._step),
            sparsity=sparsity,
            tensors=None if names is None else len(names),
            weights=None if names is None else count(names, self.shapes),
            place=place,
        )

    @property
    def _step(self) -> float:
        return 1 / self.steps_per_epoch if self.steps_per_epoch else _INSTANT

    def _stage(self, place: str | None) -> str:
        return dict(zip(self.recipe.places, self.recipe.stages, strict=False)).get(place or "", "")


def count(names: Iterable[str], shapes: Shapes) -> int:
    """How many weights the named tensors have."""
    return sum(math.prod(shapes[name]) for name in names)


def final_size(recipe: Recipe, targets: Targets, shapes: Shapes) -> Size:
    """What is left of the pruned tensors when the recipe is over: each as its last pruning asks for."""
    last = final_sparsities(recipe, targets)
    weights, total = count(last, shapes), count(shapes, shapes)
    kept = round(sum(math.prod(shapes[name]) * (1 - sparsity) for name, sparsity in last.items()))
    sparse = _FLOAT * (total - weights + kept) + -(-weights // 8)
    return Size(len(last), weights, kept, _FLOAT * total, weights, sparse)


def final_sparsities(recipe: Recipe, targets: Targets) -> dict[str, float]:
    """What the last pruning of each tensor asks of all its targets together."""
    last: dict[str, float] = {}
    for item in timeline(recipe).dated:
        if isinstance(item.action, Prune):
            last.update(dict.fromkeys(targets[item.action.place], item.action.sparsity))
    return last
