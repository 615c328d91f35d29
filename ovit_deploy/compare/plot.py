"""The figure of a comparison: top-1 over sparsity, a line a method with 95 % intervals, one SVG file."""

from collections.abc import Sequence

from ovit_deploy.compare.cells import DENSE, Cell
from ovit_deploy.drawing import axes, marks, svg
from ovit_deploy.drawing.axes import Axis, Frame

_WIDTH, _HEIGHT = 800, 440
_RIGHT = _WIDTH - 210


def figure(cells: Sequence[Cell], title: str) -> str:
    """The text of the SVG file."""
    methods = [method for method in dict.fromkeys(cell.method for cell in cells) if method != DENSE]
    dense = [cell for cell in cells if cell.method == DENSE]
    sparsities = tuple(sorted({cell.sparsity for cell in cells if cell.method != DENSE})) or (0.0,)
    percents = [100 * bound for cell in cells for bound in cell.interval95]
    across = Axis(sparsities[0], sparsities[-1], sparsities)
    down = axes.linear(min(percents), max(percents), least=0.0, most=100.0)
    frame = Frame(56, 56, _RIGHT, _HEIGHT - 48, across, down)
    parts = [svg.text(56, 22, title, "title")]
    parts += frame.drawn("sparsity of the prunable weights, %", "top-1, %", percent=True)
    for cell in dense:
        height = frame.down(100 * cell.top1)
        parts.append(f'<path class="axis" stroke-dasharray="5 4" d="M{frame.left},{height:.1f} H{_RIGHT}"/>')
        parts.append(svg.text(_RIGHT + 8, height + 4, DENSE, "faint"))
    for number, method in reversed(list(enumerate(methods))):  # the first lies on top
        own = sorted((cell for cell in cells if cell.method == method), key=lambda cell: cell.sparsity)
        parts += _series(own, frame, number)
    for number, method in enumerate(methods):
        parts += marks.key(_RIGHT + 60, 68 + 20 * number, marks.form(number), marks.colour(number), method)
    return svg.document(_WIDTH, _HEIGHT, title, parts)


def _series(cells: Sequence[Cell], frame: Frame, number: int) -> list[str]:
    colour, form = marks.colour(number), marks.form(number)
    points = [(frame.across(cell.sparsity), frame.down(100 * cell.top1)) for cell in cells]
    parts = [marks.polyline(points, colour, 2.5 if number == 0 else 1.5)]
    for cell, (x, y) in zip(cells, points, strict=True):
        low, high = (frame.down(100 * bound) for bound in cell.interval95)
        parts += marks.whiskers((x, x), (low, high), (x, y), colour)
        parts.append(marks.mark(x, y, form, colour, f"{cell.method} at {cell.sparsity:.4g}: {cell.top1:.2%}"))
    return parts
