"""How zeros may be spread over layers, whatever the rule: bounds on a layer's sparsity, and prices of its weights.

Beside the curves of its weights, a rule of allocation.py may look at :class:`Layers`; :class:`Spread` are the settings
that they come from.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, get_args

from torch import nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.hessian import images_for
from ovit_deploy.pruning.method import Calibration, Masks, Report
from ovit_deploy.pruning.owl import outlier_offsets
from ovit_deploy.pruning.patterns import Pattern
from ovit_deploy.pruning.prices import flops_per_weight
from ovit_deploy.pruning.shares import Bounds, erk_shares, shifted_shares
from ovit_deploy.selectors import SelectorError, match

LayerRule = Literal["uniform", "erk", "owl"]
Price = Literal["weights", "flops"]
ByLayer = float | Mapping[str, float]
# A layer with fewer weights than this share is all but gone.
COLLAPSED = 0.995


def values(given: ByLayer) -> list[float]:
    """All numbers of a setting."""
    return list(given.values()) if isinstance(given, Mapping) else [given]


@dataclass(frozen=True)
class Layers:
    """What a rule may know of layers.

    Args:
        shapes: Of the weights; ERK looks at them.
        bounds: Least and most zeros, in units; 0 and all where not given.
        prices: Worth of a removed weight; 1 where not given.
        offsets: Of a layer's sparsity from the common one, by OWL.
        unit: How many weights go at a time.
    """

    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    bounds: Bounds = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    offsets: Mapping[str, float] = field(default_factory=dict)
    unit: int = 1

    def within(self, sizes: Mapping[str, int], present: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """The bounds of layers that have so many units, of which so many are zero already."""
        bounds = {name: self.bounds.get(name, (0, size)) for name, size in sizes.items()}
        return {name: (max(low, present[name]), high) for name, (low, high) in bounds.items()}


@dataclass(frozen=True)
class Spread:
    """Settings of allocation, beside its rule.

    Args:
        min_sparsity: The least sparsity of every layer; or of some, by selectors as in recipes (a name, or
            ``re:PATTERN``). Of several that match a layer the strictest counts.
        max_sparsity: The highest, likewise.
        price: What a removed weight is worth in rules that compare losses: all the same, or the floating-point
            operations that it takes for one image.
        owl_threshold: M: a weight is an outlier if it scores more than M times the mean of its layer.
        owl_range: Lambda: sparsities of layers lie within a range of twice this.
        owl_samples: Calibration images for the scores.
    """

    min_sparsity: ByLayer = 0.0
    max_sparsity: ByLayer = 1.0
    price: Price = "weights"
    owl_threshold: float = 5.0
    owl_range: float = 0.08
    owl_samples: int = 128

    def __post_init__(self) -> None:
        for name in ("min_sparsity", "max_sparsity"):
            for value in values(getattr(self, name)):
                if not 0 <= value <= 1:
                    raise PruningError(f"{name} {value} is not in [0, 1]", "give fractions of zeros")
        if self.price not in get_args(Price):
            raise PruningError(f"unknown price {self.price!r}", f"choose one of {', '.join(get_args(Price))}")
        if not (self.owl_threshold > 0 and 0 <= self.owl_range <= 0.5 and self.owl_samples >= 1):
            raise PruningError(
                "OWL wants a threshold above 0, a range in [0, 0.5] and at least one sample", "try 5, 0.08 and 128"
            )

    @property
    def bounded(self) -> bool:
        """Whether there are bounds at all."""
        return any(value > 0 for value in values(self.min_sparsity)) or any(
            value < 1 for value in values(self.max_sparsity)
        )

    def layers(
        self, model: nn.Module, masks: Masks, *, rule: str, pattern: Pattern, calibration: Calibration | None
    ) -> Layers:
        """What a rule may know of the targets.

        Raises:
            PruningError: The pattern leaves nothing to spread, a price or OWL has no calibration to look at, or a
                selector matches nothing.
        """
        self.check(rule, pattern)
        names = list(masks)
        prices = flops_per_weight(model, names, images_for("the price in FLOPs", calibration, 1)) if self.priced else {}
        offsets: Mapping[str, float] = {}
        if rule == "owl":
            images = images_for("OWL", calibration, self.owl_samples)
            offsets = outlier_offsets(model, masks, images, threshold=self.owl_threshold, spread=self.owl_range)
        shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
        return Layers(shapes, self.bounds(masks, pattern.unit), prices, offsets, pattern.unit)

    @property
    def priced(self) -> bool:
        """Whether weights have different prices."""
        return self.price != "weights"

    def check(self, rule: str, pattern: Pattern) -> None:
        """Refuse what a pattern or a rule leaves no room for."""
        if pattern.limited and (self.bounded or rule in ("erk", "owl")):
            asked = f"allocation {rule}" if rule in ("erk", "owl") else "bounds on layers"
            raise PruningError(
                f"pattern {pattern.name} gives every layer the same sparsity: {asked} cannot be had",
                "use another pattern, or none",
            )
        if self.priced and rule in get_args(LayerRule):
            raise PruningError(f"prices have no meaning with {rule} shares", "choose another allocation")

    def bounds(self, masks: Masks, unit: int) -> dict[str, tuple[int, int]]:
        """Least and most zeros of each target, in units."""
        least, most = (by_layer(value, masks) for value in (self.min_sparsity, self.max_sparsity))
        return {
            name: (
                math.ceil(max(map(exact, least[name]), default=Fraction(0)) * mask.numel() / unit),
                math.floor(min(map(exact, most[name]), default=Fraction(1)) * mask.numel() / unit),
            )
            for name, mask in masks.items()
        }


# No bounds, and every weight worth the same.
FREE = Spread()


def exact(value: float) -> Fraction:
    """The decimal number as it was written: 0.3 is three tenths."""
    return Fraction(str(value))


def by_layer(given: ByLayer, masks: Masks) -> dict[str, list[float]]:
    """What is given for each target."""
    if not isinstance(given, Mapping):
        return {name: [given] for name in masks}
    shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
    found: dict[str, list[float]] = {name: [] for name in masks}
    for selector, value in given.items():
        try:
            for name in match([selector], shapes):
                found[name].append(value)
        except SelectorError as error:
            raise PruningError(f"bounds on sparsity: {error}", "select targets of the same pruner") from error
    return found


def layer_shares(
    rule: str, sizes: Mapping[str, int], present: Mapping[str, int], num_zeros: int, layers: Layers
) -> dict[str, int]:
    """Zeros of each layer by a rule that looks at layers as a whole, all in units.

    Zeros that are there already stay. Under OWL, whose shares move with the weights, they take from the other layers;
    uniform and ERK shares say what a layer shall be, so one that is sparser already is an error.

    Raises:
        PruningError: A layer is sparser already, or the bounds do not allow the total.
    """
    if rule != "owl":
        wanted = unconditional_shares(rule, sizes, num_zeros, layers, layers.bounds)
        for name, share in wanted.items():
            if present[name] > share + 1:  # a share can lose one to rounding when the total grows
                raise PruningError(
                    f"{name} has {present[name] * layers.unit} zeros already, {rule} sparsity wants "
                    f"{share * layers.unit}",
                    "ask for more sparsity, or choose another allocation",
                )
    return unconditional_shares(rule, sizes, num_zeros, layers, layers.within(sizes, present))


def unconditional_shares(
    rule: str, sizes: Mapping[str, int], num_zeros: int, layers: Layers, bounds: Bounds
) -> dict[str, int]:
    """Shares by ``rule`` within bounds."""
    if rule == "erk":
        return erk_shares({name: layers.shapes[name] for name in sizes}, num_zeros, unit=layers.unit, bounds=bounds)
    offsets = {name: layers.offsets[name] if rule == "owl" else 0.0 for name in sizes}
    return shifted_shares(sizes, num_zeros, offsets, bounds=bounds)


def warn_of_collapse(masks: Masks, report: Report) -> None:
    """Tell of layers that are all but gone."""
    for name, mask in masks.items():
        sparsity = 1 - int(mask.sum()) / mask.numel()
        if sparsity > COLLAPSED:
            report(f"warning: {name} is {sparsity:.2%} zeros and may pass nothing on; max_sparsity would hold it back")
