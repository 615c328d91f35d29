"""A result of latencies as a picture: a line an engine and precision, a mark a sparsity, a panel a batch size."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovit_deploy import checkpoint
from ovit_deploy.bench.statistics import median_interval, units
from ovit_deploy.drawing import axes, marks, svg
from ovit_deploy.drawing.axes import Axis, Frame

Row = Mapping[str, Any]
ABOUT = re.compile(r"^(.*?) with random weights(?: \((.*)\))?$")
TOP, LINE, LEFT, PANEL, GAP = 76, 22, 184, 300, 28
INSET = 12


def figure(document: Mapping[str, Any], title: str | None = None) -> str:
    """The SVG of a result as ``bench`` writes it.

    Across stand milliseconds an image (the median, whiskers for its 95 % interval over blocks of runs), so that batches
    can be compared. What failed has no mark.

    Args:
        document: of kind ``latency``.
        title: above it; by default the models.
    """
    rows = [row for row in document["rows"] if row.get("latency")]
    lines = list(dict.fromkeys(map(label, document["rows"])))
    sizes = sorted({size(row) for row in rows})
    sparsities = sorted({_rounded(row) for row in rows})
    title = title or ", ".join(dict.fromkeys(model(row) for row in document["rows"]))
    bottom = TOP + LINE * len(lines)
    parts = [svg.text(12, 20, title, "title"), *_legend(sparsities)]
    parts += [svg.text(LEFT - 8, _middle(number) + 4, name, "right") for number, name in enumerate(lines)]
    for number, one in enumerate(sizes):
        left = LEFT + number * (PANEL + GAP)
        own = [row for row in rows if size(row) == one]
        parts += _panel(own, lines, sparsities, left, bottom, _told(one))
    width = LEFT + len(sizes) * (PANEL + GAP)
    return svg.document(width, bottom + 52, title, parts)


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write the picture, whole or not at all; its folder is made.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write(path, figure(document))


def label(row: Row) -> str:
    """Engine, precision, other options, and how the zeros lie, in words."""
    engine, _, given = row["engine"].partition(":")
    options = dict(part.split("=") for part in given.split(",")) if given else {}
    found = ABOUT.match(row["model"])
    about = (found[2] or "").split(", ") if found else []
    rounded = options.pop("precision", None)
    precision = "+".join([*(["INT8"] if "INT8" in about else []), *([rounded] if rounded else [])]) or "FP32"
    more = [f"{name}={value}" for name, value in options.items()]
    return " ".join([engine, precision, *more, *(one for one in about if one not in ("INT8", ""))])


def model(row: Row) -> str:
    """Its name without what was done to it."""
    found = ABOUT.match(row["model"])
    return f"{found[1]}, random weights" if found else Path(row["model"]).name


def size(row: Row) -> tuple[int, int]:
    """Batch size and threads."""
    return row["batch_size"], row["threads"]


def _told(one: tuple[int, int]) -> str:
    batch, threads = one
    return f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}"


def _rounded(row: Row) -> int:
    """Zeros in whole per cent: what was asked for, whatever the last weight made of it."""
    return round(100 * row["sparsity"])


def _middle(number: int) -> float:
    return TOP + LINE * (number + 0.5)


def _legend(sparsities: Sequence[int]) -> Iterator[str]:
    for number, zeros in enumerate(sparsities):
        words = f"{zeros} % zeros" if zeros else "dense"
        yield from marks.key(LEFT + 110 * number, 46, *_look(number), words, hollow=not zeros)


def _look(number: int) -> tuple[str, str]:
    return marks.form(number), marks.colour(number)


def _panel(
    rows: Sequence[Row], lines: Sequence[str], sparsities: Sequence[int], left: float, bottom: float, title: str
) -> Iterator[str]:
    """One batch size and number of threads."""
    spans = [_span_ms(row) for row in rows]
    x = axes.fitting(min(low for low, _, _ in spans), max(high for _, _, high in spans))
    frame = Frame(left, TOP, left + PANEL, bottom, x, Axis(0, 1, ()), inset=INSET)
    yield svg.text(left + PANEL / 2, TOP - 8, title, "middle")
    yield from frame.drawn("ms an image", "")
    for number in range(len(lines)):
        yield svg.line(left, _middle(number), left + PANEL, _middle(number), "grid")
    for row, (low, centre, high) in zip(rows, spans, strict=True):
        y, place = _middle(lines.index(label(row))), sparsities.index(_rounded(row))
        form, colour = _look(place)
        ends = frame.across(low), frame.across(high)
        yield from marks.whiskers(ends, (y, y), (frame.across(centre), y), colour)
        told = f"{label(row)}, {row['weights']}: {centre:.3g} ms an image"
        yield marks.mark(frame.across(centre), y, form, colour, told, hollow=not row["sparsity"])


def _span_ms(row: Row) -> tuple[float, float, float]:
    """Low end, median and high end of the time an image takes."""
    median = row["latency"]["median_ms"]
    low, high = median_interval(units(row.get("blocks_ms") or [])) or (median, median)
    return min(low, median) / row["batch_size"], median / row["batch_size"], max(high, median) / row["batch_size"]
