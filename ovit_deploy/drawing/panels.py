"""Curves over the same epochs, one above the other."""

from collections.abc import Sequence
from dataclasses import dataclass

from ovit_deploy.drawing import axes, svg
from ovit_deploy.drawing.marks import colour, polyline

_WIDTH, _PANEL = 720, 126
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP = 64, 16, 56, 40, 34


@dataclass(frozen=True)
class Panel:
    """One curve, from 0 to ``highest``.

    Args:
        name: Above the panel.
        points: Epoch and value.
        highest: Value at the upper end.
        shown: How that value is written.
    """

    name: str
    points: Sequence[tuple[float, float]]
    highest: float
    shown: str


def figure(panels: Sequence[Panel], end: float, title: str) -> str:
    """The text of an SVG file.

    Args:
        panels: From top to bottom.
        end: Epoch at the right end.
        title: Above the picture.
    """
    height = _TOP + len(panels) * (_PANEL + _GAP) - _GAP + _BOTTOM
    parts = [svg.text(12, 22, title, "title")]
    for number, panel in enumerate(panels):
        top = _TOP + number * (_PANEL + _GAP)
        placed = [(_x(epoch, end), top + _PANEL * (1 - value / panel.highest)) for epoch, value in panel.points]
        parts += [*_frame(panel, top), polyline(placed, colour(number), 2)]
    return svg.document(_WIDTH, height, title, [*parts, *_epochs(end, height)])


def _frame(panel: Panel, top: float) -> list[str]:
    bottom = top + _PANEL
    return [
        svg.text(_LEFT, top - 8, panel.name),
        f'<path class="axis" d="M{_LEFT},{top:.1f} V{bottom:.1f} H{_WIDTH - _RIGHT}"/>',
        svg.text(_LEFT - 6, top + 10, panel.shown, "right"),
        svg.text(_LEFT - 6, bottom, "0", "right"),
    ]


def _epochs(end: float, height: float) -> list[str]:
    ticks = [tick for tick in axes.linear(0.0, end).ticks if tick <= end]
    labels = [svg.text(_x(epoch, end), height - _BOTTOM + 16, f"{epoch:g}", "middle") for epoch in ticks]
    return [*labels, svg.text(_x(end / 2, end), height - 6, "epoch", "middle faint")]


def _x(epoch: float, end: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * epoch / end
