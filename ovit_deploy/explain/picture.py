"""The picture of a Pareto front: predicted loss over predicted latency, the plan that was chosen, the time it took."""

from collections.abc import Sequence

from ovit_deploy.drawing import axes, marks, svg
from ovit_deploy.drawing.axes import Axis
from ovit_deploy.pruning.latency import Plan

_WIDTH, _HEIGHT = 680, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 24, 48, 52
_CHOSEN, _FRONT, _MEASURED = (marks.colour(number) for number in range(3))


def figure(front: Sequence[Plan], chosen: Plan, target_ms: float, title: str, measured_ms: float | None = None) -> str:
    """The text of the SVG file.

    Args:
        front: Best plans, from the fastest on.
        chosen: One plan.
        target_ms: The time that was asked for.
        title: Above the picture.
        measured_ms: What the exported model took.
    """
    times = [target_ms, *([measured_ms] if measured_ms else []), *(plan.ms for plan in front)]
    x, y = axes.linear(min(times), max(times)), axes.linear(0.0, max(plan.loss for plan in front), least=0.0)
    points = [(_across(x, plan.ms), _down(y, plan.loss)) for plan in front]
    parts = [svg.text(8, 22, title, "title"), *_frame(x, y), marks.polyline(points, _FRONT, 2)]
    for plan, (at, height) in zip(front, points, strict=True):
        parts.append(marks.mark(at, height, "circle", _FRONT, f"{plan.ms:.4g} ms, loss {plan.loss:+.3g}"))
    beyond = measured_ms is not None and measured_ms > target_ms
    parts += _upright(x, target_ms, _CHOSEN, "target", leftwards=beyond)
    if measured_ms:
        parts += _upright(x, measured_ms, _MEASURED, "measured", leftwards=not beyond)
    told = f"chosen: {chosen.ms:.4g} ms, loss {chosen.loss:+.3g}"
    parts.append(marks.mark(_across(x, chosen.ms), _down(y, chosen.loss), "diamond", _CHOSEN, told))
    return svg.document(_WIDTH, _HEIGHT, title, parts)


def _across(axis: Axis, ms: float) -> float:
    return _LEFT + axis.share(ms) * (_WIDTH - _LEFT - _RIGHT)


def _down(axis: Axis, loss: float) -> float:
    return _HEIGHT - _BOTTOM - axis.share(loss) * (_HEIGHT - _TOP - _BOTTOM)


def _frame(x: Axis, y: Axis) -> list[str]:
    """Grid, numbers and what they are."""
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [svg.line(_LEFT, _down(y, loss), right, _down(y, loss), "grid") for loss in y.ticks]
    parts += [svg.text(_LEFT - 6, _down(y, loss) + 4, f"{loss:.3g}", "right") for loss in y.ticks]
    parts += [svg.text(_across(x, ms), bottom + 18, f"{ms:.4g}", "middle") for ms in x.ticks]
    parts.append(f'<path class="axis" d="M{_LEFT},{_TOP} V{bottom} H{right}"/>')
    parts.append(svg.text((_LEFT + right) / 2, _HEIGHT - 12, "predicted latency, ms", "middle faint"))
    return [*parts, svg.text(8, _TOP - 8, "predicted increase of the loss", "faint")]


def _upright(axis: Axis, ms: float, colour: str, what: str, *, leftwards: bool) -> list[str]:
    """A dashed line at a time, its name on one side: the one with room, where there is little on the other."""
    x = _across(axis, ms)
    line = f'<path stroke="{colour}" stroke-dasharray="5 4" d="M{x:.1f},{_TOP} V{_HEIGHT - _BOTTOM}"/>'
    leftwards = (leftwards or axis.share(ms) > 0.75) and axis.share(ms) > 0.25
    words = f"{what} {ms:.4g} ms"
    return [line, svg.text(x - 6 if leftwards else x + 6, _TOP + 14, words, "right" if leftwards else "")]
