"""The pictures of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

from ovit_deploy.drawing import axes, heatmap, marks, panels, svg
from ovit_deploy.drawing.axes import Axis, Frame
from ovit_deploy.drawing.panels import Panel
from ovit_deploy.report.contestants import Contestant

_WIDTH, _HEIGHT = 660, 390
_BAR, _LETTER = 18, 6.6
Marks = Mapping[tuple[str, str], tuple[str, str]]


def looks(contestants: Sequence[Contestant]) -> Marks:
    """Form and colour by engine and run: a form an engine, a colour a run."""
    engines = list(dict.fromkeys(one.engine for one in contestants))
    runs = list(dict.fromkeys(one.run for one in contestants))
    return {
        (one.engine, one.run): (marks.form(engines.index(one.engine)), marks.colour(runs.index(one.run)))
        for one in contestants
    }


def accuracy_against_latency(contestants: Sequence[Contestant], look: Marks, title: str, machine: str) -> str | None:
    """Top-1 over the median latency with both intervals; None if nobody has both."""
    shown = [one for one in contestants if one.accuracy and one.median_ms]
    if not shown:
        return None
    spans_ms = [bound for one in shown for bound in _span_ms(one)]
    percents = [100 * bound for one in shown if one.accuracy for bound in one.accuracy.interval95]
    across, down = axes.fitting(min(spans_ms), max(spans_ms)), axes.linear(min(percents), max(percents), most=100.0)
    frame = Frame(56, 76, _WIDTH - 16, _HEIGHT - 52, across, down)
    logarithmic = " (logarithmic)" if across.logarithmic else ""
    parts = [
        svg.text(12, 18, title, "title"),
        svg.text(12, 36, machine, "faint"),
        *frame.drawn(f"median latency, ms{logarithmic}", "top-1, %"),
    ]
    for one in sorted(shown, key=lambda one: not one.dense):  # sparse ones lie on top
        parts += _point(one, frame, *look[one.engine, one.run])
    return svg.document(_WIDTH, _HEIGHT, title, parts)


def _span_ms(one: Contestant) -> tuple[float, float]:
    assert one.median_ms
    low, high = one.interval_ms or (one.median_ms, one.median_ms)
    return min(low, one.median_ms), max(high, one.median_ms)


def _point(one: Contestant, frame: Frame, form: str, colour: str) -> list[str]:
    assert one.accuracy and one.median_ms
    x, y = frame.across(one.median_ms), frame.down(100 * one.accuracy.top1)
    low, high = map(frame.across, _span_ms(one))
    bottom, top = (frame.down(100 * bound) for bound in one.accuracy.interval95)
    told = f"{one.run}, {one.engine}, {one.weights}: {one.median_ms:.3g} ms, {one.accuracy.top1:.2%}"
    drawn = marks.mark(x, y, form, colour, told, hollow=one.dense)
    return [*marks.whiskers((low, high), (bottom, top), (x, y), colour), drawn]


def sparsity_bars(layers: Mapping[str, float], title: str) -> str:
    """A bar a layer, as long as its fraction of zeros."""
    left = 12 + _LETTER * max(map(len, layers)) + 8
    width, top, length = left + 340, 36, 280
    parts = [svg.text(12, 18, title, "title")]
    for number, (name, sparsity) in enumerate(layers.items()):
        y = top + number * _BAR
        parts.append(svg.text(left - 8, y + 12, name, "right"))
        parts.append(f'<rect class="track" x="{left:.1f}" y="{y}" width="{length}" height="{_BAR - 4}"/>')
        size = f'width="{length * sparsity:.1f}" height="{_BAR - 4}"'
        parts.append(f'<rect x="{left:.1f}" y="{y}" {size} fill="{marks.colour(1)}"/>')
        parts.append(svg.text(left + length + 6, y + 12, f"{100 * sparsity:.1f} %"))
    return svg.document(width, top + len(layers) * _BAR + 8, title, parts)


def sparsity_heatmap(layers: Mapping[str, Sequence[float]], columns: Sequence[str], title: str) -> str:
    """Layers by runs, in per cent of zeros; NaN where a run has no such layer."""
    percents = {name: [100 * value for value in values] for name, values in layers.items()}
    return heatmap.figure(percents, columns, title, "zeros, %", logarithmic=False, shown=".1f")


def training(epochs: Sequence[Mapping[str, Any]], title: str) -> str:
    """Loss and top-1 on training images, epoch by epoch."""
    loss = [(line["epoch"], line["loss"]) for line in epochs]
    top1 = [(line["epoch"], line["train_top1"]) for line in epochs]
    highest = max(value for _, value in loss) or 1.0
    curves = [Panel("training loss", loss, highest, f"{highest:.2g}"), Panel("training top-1", top1, 1.0, "100 %")]
    return panels.figure(curves, epochs[-1]["epoch"], title)


def prunings(lines: Sequence[Mapping[str, Any]], title: str) -> str | None:
    """Increase of the loss at every pruning, predicted and measured; None for fewer than two with both."""
    series = {name: [(line["epoch"], line[key]) for line in lines] for name, key in _LOSSES.items()}
    both = [line for line in lines if all(line.get(key) is not None for key in _LOSSES.values())]
    if len({line["epoch"] for line in both}) < 2 or len(both) < len(lines):
        return None
    values = [value for points in series.values() for _, value in points]
    ends = axes.linear(0.0, max(line["epoch"] for line in lines), least=0.0)
    frame = Frame(72, 62, _WIDTH - 16, 300, ends, _around_zero(values))
    parts = [svg.text(12, 18, title, "title"), *frame.drawn("epoch", "increase of the loss, nats")]
    for number, (name, points) in enumerate(series.items()):
        form, colour = marks.form(number), marks.colour(number)
        placed = [(frame.across(epoch), frame.down(value)) for epoch, value in points]
        parts.append(marks.polyline(placed, colour))
        for (x, y), (epoch, value) in zip(placed, points, strict=True):
            parts.append(marks.mark(x, y, form, colour, f"{name} at epoch {epoch:g}: {value:+.2g}"))
        parts += marks.key(_WIDTH - 200 + 100 * number, 38, form, colour, name)
    return svg.document(_WIDTH, 352, title, parts)


_LOSSES = {"predicted": "predicted_loss_increase", "measured": "measured_loss_increase"}


def _around_zero(values: Sequence[float]) -> Axis:
    return axes.linear(min(0.0, *values), max(0.0, *values))
