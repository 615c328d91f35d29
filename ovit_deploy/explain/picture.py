"""The picture of a Pareto front: predicted loss over predicted latency, the plan that was chosen, the time it took."""

import math
from collections.abc import Sequence

from ovit_deploy.compare import svg
from ovit_deploy.pruning.latency import Plan

_WIDTH, _HEIGHT = 680, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 24, 48, 52
_LINE, _CHOSEN, _MEASURED = "#0072b2", "#d62728", "#e69f00"  # Okabe & Ito: for colour-blind readers, too
_TICKS = 6


class _Axes:
    """Milliseconds and losses to pixels, both axes from a round number to a round number."""

    def __init__(self, ms: Sequence[float], losses: Sequence[float]) -> None:
        self.ms, self.losses = _ticks(min(ms), max(ms)), _ticks(0.0, max(losses))

    def across(self, ms: float) -> float:
        return _LEFT + (ms - self.ms[0]) / (self.ms[-1] - self.ms[0]) * (_WIDTH - _LEFT - _RIGHT)

    def down(self, loss: float) -> float:
        low, high = self.losses[0], self.losses[-1]
        return _TOP + (high - loss) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def parts(self) -> list[str]:
        """Grid, numbers and what they are."""
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        parts = [svg.line(_LEFT, self.down(loss), right, self.down(loss), "grid") for loss in self.losses]
        parts += [svg.text(_LEFT - 6, self.down(loss) + 4, f"{loss:.3g}", "right") for loss in self.losses]
        parts += [svg.text(self.across(ms), bottom + 18, f"{ms:.4g}", "middle") for ms in self.ms]
        parts.append(f'<path class="axis" d="M{_LEFT},{_TOP} V{bottom} H{right}"/>')
        parts.append(svg.text((_LEFT + right) / 2, _HEIGHT - 12, "predicted latency, ms", "middle faint"))
        parts.append(svg.text(8, _TOP - 8, "predicted increase of the loss", "faint"))
        return parts


def figure(front: Sequence[Plan], chosen: Plan, target_ms: float, title: str, measured_ms: float | None = None) -> str:
    """The text of the SVG file.

    Args:
        front: Best plans, from the fastest on.
        chosen: One plan.
        target_ms: The time that was asked for.
        title: Above the picture.
        measured_ms: What the exported model took.
    """
    marks = [target_ms, *([measured_ms] if measured_ms else [])]
    axes = _Axes([plan.ms for plan in front] + marks, [plan.loss for plan in front])
    points = " ".join(f"{axes.across(plan.ms):.1f},{axes.down(plan.loss):.1f}" for plan in front)
    parts = [svg.text(8, 22, title, "title"), *axes.parts()]
    parts.append(f'<polyline fill="none" stroke="{_LINE}" stroke-width="2" points="{points}"/>')
    parts += [_dot(axes, plan.ms, plan.loss, _LINE, 2.5) for plan in front]
    right_of_it = measured_ms is not None and measured_ms > target_ms
    parts += _upright(axes, target_ms, _CHOSEN, "target", leftwards=right_of_it)
    if measured_ms:
        parts += _upright(axes, measured_ms, _MEASURED, "measured", leftwards=not right_of_it)
    parts.append(_dot(axes, chosen.ms, chosen.loss, _CHOSEN, 5))
    return svg.document(_WIDTH, _HEIGHT, title, parts)


def _dot(axes: _Axes, ms: float, loss: float, colour: str, radius: float) -> str:
    told = f"{ms:.4g} ms, loss +{loss:.3g}"
    centre = f'cx="{axes.across(ms):.1f}" cy="{axes.down(loss):.1f}"'
    return f'<circle {centre} r="{radius}" fill="{colour}"><title>{told}</title></circle>'


def _upright(axes: _Axes, ms: float, colour: str, what: str, *, leftwards: bool) -> list[str]:
    """A dashed line at a time, its name on one side: the one with room, where there is little on the other."""
    x, bottom = axes.across(ms), _HEIGHT - _BOTTOM
    line = f'<path stroke="{colour}" stroke-dasharray="5 4" d="M{x:.1f},{_TOP} V{bottom}"/>'
    share = (x - _LEFT) / (_WIDTH - _LEFT - _RIGHT)
    leftwards = (leftwards or share > 0.75) and share > 0.25
    words = f"{what} {ms:.4g} ms"
    return [line, svg.text(x - 6 if leftwards else x + 6, _TOP + 14, words, "right" if leftwards else "")]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers around a range, about `_TICKS` of them."""
    rough = (high - low) / _TICKS or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]
