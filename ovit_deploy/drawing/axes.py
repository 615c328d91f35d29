"""The frame of a plot: values to pixels, and ticks at round values."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ovit_deploy.drawing import svg

_TICKS = 7
_SAME = 1e-6
_WIDE = 8.0  # high over low from which a logarithmic axis shows more


@dataclass(frozen=True)
class Axis:
    """A range of values, and where ticks stand in it."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """The place of a value: 0 at the low end, 1 at the high one."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low) if high > low else 0.5


def linear(low: float, high: float, *, least: float = -math.inf, most: float = math.inf) -> Axis:
    """Whole steps around ``low`` and ``high``, but nothing beyond ``least`` and ``most``."""
    if high - low <= _SAME * max(abs(low), abs(high)):  # ticks show six digits
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    step = _step((high - low) / _TICKS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(float(f"{number * step:.12g}") for number in range(first, last + 1))
    inside = tuple(tick for tick in ticks if least <= tick <= most)
    return Axis(max(least, ticks[0]), min(most, ticks[-1]), inside)


def logarithmic(low: float, high: float) -> Axis:
    """From the round value below ``low`` to the one above ``high``; round is 1, 2 or 5 with any exponent."""
    rounds = list(_rounds(low, high))
    return Axis(rounds[0], rounds[-1], tuple(rounds), logarithmic=True)


def fitting(low: float, high: float) -> Axis:
    """For positive values: logarithmic where they are far apart."""
    return logarithmic(low, high) if high > _WIDE * low else linear(low, high, least=0.0)


def _step(span: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... (and their fractions) that is not below ``span``."""
    power = 10.0 ** math.floor(math.log10(span))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= span * (1 - 1e-9))


def _rounds(low: float, high: float) -> Iterator[float]:
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    every = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 2, 5)]
    first = max(value for value in every if value <= low)
    last = min(value for value in every if value >= high and value > first)
    return (value for value in every if first <= value <= last)


@dataclass(frozen=True)
class Frame:
    """A rectangle of pixels with an axis across and one down.

    Args:
        left: Pixels.
        top: Pixels.
        right: Pixels.
        bottom: Pixels.
        x: Axis across.
        y: Axis down.
        inset: Pixels between the frame and both ends of the axis across.
    """

    left: float
    top: float
    right: float
    bottom: float
    x: Axis
    y: Axis
    inset: float = 14.0

    def across(self, value: float) -> float:
        """Where a value of the x axis stands."""
        return self.left + self.inset + self.x.share(value) * (self.right - self.left - 2 * self.inset)

    def down(self, value: float) -> float:
        """Where a value of the y axis stands."""
        return self.bottom - self.y.share(value) * (self.bottom - self.top)

    def drawn(self, x_label: str, y_label: str, *, percent: bool = False) -> list[str]:
        """Grid, ticks and labels; with ``percent`` the ticks across are fractions, shown in per cent."""
        parts = []
        for tick in self.y.ticks:
            parts.append(svg.line(self.left, self.down(tick), self.right, self.down(tick), "grid"))
            parts.append(svg.text(self.left - 6, self.down(tick) + 4, f"{tick:g}", "right"))
        for tick in self.x.ticks:
            words = f"{100 * tick if percent else tick:g}"
            parts.append(svg.text(self.across(tick), self.bottom + 18, words, "middle"))
        outline = f"M{self.left:g},{self.top:g} V{self.bottom:g} H{self.right:g}"
        parts.append(f'<path class="axis" d="{outline}"/>')
        parts.append(svg.text((self.left + self.right) / 2, self.bottom + 40, x_label, "middle faint"))
        parts.append(svg.text(self.left - 44, self.top - 16, y_label, "faint"))
        return parts
