"""The figure of a comparison: top-1 over sparsity, a line a method with 95 % intervals, one SVG file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ovit_deploy.compare import svg
from ovit_deploy.compare.cells import DENSE, Cell

_WIDTH, _HEIGHT = 800, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 210, 40, 48
# Middle tones, which stand out from white and from black (after Okabe & Ito, for colour-blind readers, extended).
_COLOURS = (
    "#d62728",
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#7f7f7f",
    "#56b4e9",
    "#8c6d31",
    "#9467bd",
    "#bcbd22",
)
_MARKERS = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True)
class _Scale:
    """Values to pixels; ``low`` and ``high`` of both axes."""

    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, value: float) -> float:
        low, high = self.x
        share = (value - low) / (high - low) if high > low else 0.5
        return _LEFT + 14 + share * (_WIDTH - _LEFT - _RIGHT - 28)

    def down(self, value: float) -> float:
        low, high = self.y
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def figure(cells: Sequence[Cell], title: str) -> str:
    """The text of the SVG file."""
    methods = [method for method in dict.fromkeys(cell.method for cell in cells) if method != DENSE]
    dense = [cell for cell in cells if cell.method == DENSE]
    sparsities = sorted({cell.sparsity for cell in cells if cell.method != DENSE}) or [0.0]
    percents = [100 * bound for cell in cells for bound in cell.interval95]
    scale = _Scale((sparsities[0], sparsities[-1]), _rounded(min(percents), max(percents)))
    parts = [svg.text(_LEFT, 22, title, "title"), *_axes(scale, sparsities)]
    for cell in dense:
        height = scale.down(100 * cell.top1)
        parts.append(f'<path class="axis" stroke-dasharray="5 4" d="M{_LEFT},{height:.1f} H{_WIDTH - _RIGHT}"/>')
        parts.append(svg.text(_WIDTH - _RIGHT + 8, height + 4, DENSE, "faint"))
    for number, method in reversed(list(enumerate(methods))):  # the first lies on top
        own = sorted((cell for cell in cells if cell.method == method), key=lambda cell: cell.sparsity)
        parts += _series(own, scale, number)
    parts += [part for number, method in enumerate(methods) for part in _key(number, method)]
    return svg.document(_WIDTH, _HEIGHT, title, parts)


def _rounded(low: float, high: float) -> tuple[float, float]:
    """The range of the axis: whole steps around the values, within 0 and 100."""
    step = _step(high - low)
    return max(0.0, math.floor(low / step) * step), min(100.0, math.ceil(high / step + 1e-9) * step)


def _step(span: float) -> float:
    """A round distance between ticks, about six of them."""
    return next((step for step in (0.5, 1.0, 2.0, 5.0, 10.0) if span / step <= 7), 20.0)


def _axes(scale: _Scale, sparsities: Sequence[float]) -> list[str]:
    low, high = scale.y
    step, bottom, right = _step(high - low), _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        if value <= high + 1e-9:
            parts.append(svg.line(_LEFT, scale.down(value), right, scale.down(value), "grid"))
            parts.append(svg.text(_LEFT - 6, scale.down(value) + 4, f"{value:g}", "right"))
    parts += [svg.text(scale.across(s), bottom + 18, f"{100 * s:g}", "middle") for s in sparsities]
    parts.append(f'<path class="axis" d="M{_LEFT},{_TOP} V{bottom} H{right}"/>')
    parts.append(svg.text((_LEFT + right) / 2, _HEIGHT - 8, "sparsity of the prunable weights, %", "middle faint"))
    parts.append(svg.text(_LEFT - 44, _TOP - 6, "top-1, %", "faint"))
    return parts


def _series(cells: Sequence[Cell], scale: _Scale, number: int) -> list[str]:
    colour, width = _COLOURS[number % len(_COLOURS)], 2.5 if number == 0 else 1.5
    points = [(scale.across(cell.sparsity), scale.down(100 * cell.top1)) for cell in cells]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [f'<polyline fill="none" stroke="{colour}" stroke-width="{width}" points="{joined}"/>']
    for cell, (x, y) in zip(cells, points, strict=True):
        low, high = (scale.down(100 * bound) for bound in cell.interval95)
        parts.append(f'<path stroke="{colour}" d="M{x:.1f},{low:.1f} V{high:.1f}"/>')
        told = f"{cell.method} at {cell.sparsity:.4g}: {cell.top1:.2%}"
        parts.append(_marker(x, y, number, told))
    return parts


def _marker(x: float, y: float, number: int, told: str) -> str:
    """A mark whose form and colour are the method's; ``told`` shows where the pointer rests."""
    colour, form = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
    paths = {
        "circle": f"M{x - 4:.1f},{y:.1f} a4,4 0 1,0 8,0 a4,4 0 1,0 -8,0",
        "square": f"M{x - 3.5:.1f},{y - 3.5:.1f} h7 v7 h-7 z",
        "diamond": f"M{x:.1f},{y - 5:.1f} l5,5 l-5,5 l-5,-5 z",
        "triangle": f"M{x:.1f},{y - 4.5:.1f} l4.5,8 h-9 z",
    }
    return f'<path class="halo" fill="{colour}" d="{paths[form]}"><title>{told}</title></path>'


def _key(number: int, method: str) -> list[str]:
    x, y = _WIDTH - _RIGHT + 60, _TOP + 12 + 20 * number
    return [_marker(x, y - 4, number, method), svg.text(x + 12, y, method)]
