"""Rows by columns, darker where there is more, one SVG file."""

import math
from collections.abc import Callable, Mapping, Sequence

from ovit_deploy.drawing import svg

_CELL_WIDTH, _CELL_HEIGHT, _TOP, _MARGIN = 74, 20, 64, 16
_LETTER = 6.6  # pixels a letter of a label takes, about
_SCALE = ((255, 247, 188), (254, 196, 79), (236, 112, 20), (153, 52, 4))  # ColorBrewer YlOrBr: grey in order, too


def figure(
    rows: Mapping[str, Sequence[float]],
    columns: Sequence[str],
    title: str,
    legend: str,
    *,
    logarithmic: bool = True,
    shown: str = ".2g",
) -> str:
    """The text of the SVG file.

    Args:
        rows: The values of each row, one a column; NaN where there is none.
        columns: Their heads.
        title: Above the picture.
        legend: What the numbers are.
        logarithmic: Whether colours follow the logarithm of the values; those of 0 and below are the lightest then.
        shown: How a value is written.
    """
    left = _MARGIN + _LETTER * max(map(len, rows))
    width = max(left + _CELL_WIDTH * len(columns), _LETTER * 1.25 * max(len(title), len(legend))) + _MARGIN
    height = _TOP + _CELL_HEIGHT * len(rows) + _MARGIN
    shades = _shades([value for values in rows.values() for value in values], logarithmic=logarithmic)
    parts = [svg.text(_MARGIN, 22, title, "title"), svg.text(_MARGIN, 40, legend, "faint")]
    for at, column in enumerate(columns):
        parts.append(svg.text(left + (at + 0.5) * _CELL_WIDTH, _TOP - 6, column, "middle"))
    for number, (name, values) in enumerate(rows.items()):
        y = _TOP + number * _CELL_HEIGHT
        parts.append(svg.text(left - 8, y + 14, name, "right"))
        for at, value in enumerate(values):
            parts += _cell(left + at * _CELL_WIDTH, y, value, shades(value), shown)
    return svg.document(width, height, title, parts)


def _cell(x: float, y: float, value: float, share: float, shown: str) -> list[str]:
    if math.isnan(value):
        return [svg.text(x + _CELL_WIDTH / 2, y + 14, "-", "middle faint")]
    red, green, blue = _colour(share)
    ink = "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"
    size = f'width="{_CELL_WIDTH - 1}" height="{_CELL_HEIGHT - 1}"'
    box = f'<rect x="{x:.1f}" y="{y}" {size} fill="rgb({red},{green},{blue})"/>'
    return [box, svg.text(x + _CELL_WIDTH / 2, y + 14, format(value, shown), "middle", style=f"fill:{ink}")]


def _shades(values: Sequence[float], *, logarithmic: bool) -> Callable[[float], float]:
    """A function from a value to its place between the lightest and the darkest colour."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not logarithmic)]
    keys = [math.log(value) if logarithmic else value for value in finite]
    low, high = (min(keys), max(keys)) if keys else (0.0, 1.0)

    def share(value: float) -> float:
        if not math.isfinite(value):
            return 1.0
        if logarithmic and value <= 0:
            return 0.0
        key = math.log(value) if logarithmic else value
        return (key - low) / (high - low) if high > low else 0.0

    return share


def _colour(share: float) -> tuple[int, int, int]:
    place = share * (len(_SCALE) - 1)
    first = min(int(place), len(_SCALE) - 2)
    part = place - first
    red, green, blue = (round(a + part * (b - a)) for a, b in zip(_SCALE[first], _SCALE[first + 1], strict=True))
    return red, green, blue
