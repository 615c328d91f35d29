"""A recipe as a picture: sparsity and learning rate over the epochs, one SVG file without any other."""

from collections.abc import Sequence
from html import escape

from ovit_deploy.recipe.timeline import Densify, Prune, Timeline

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP = 64, 16, 34, 40, 34
_PANEL = (_HEIGHT - _TOP - _BOTTOM - _GAP) / 2
_SAMPLES = 600
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.axis{stroke:#999;fill:none}.line{fill:none;stroke-width:2}"
    ".sparsity{stroke:#b3261e}.rate{stroke:#1a5fb4}.right{text-anchor:end}.middle{text-anchor:middle}"
)
Points = Sequence[tuple[float, float]]


def svg(plan: Timeline, title: str, *, steps_per_epoch: int = 100) -> str:
    """The picture of ``plan`` as the text of an SVG file; a step is drawn as if there were so many an epoch."""
    end = plan.num_epochs or 1.0
    rates = _rates(plan, end, 1 / steps_per_epoch)
    highest = max(rate for _, rate in rates) or 1.0
    lower = _TOP + _PANEL + _GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style>",
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
            *_panel("sparsity", _TOP, "100 %"),
            _line(_sparsities(plan, end), end, 1.0, _TOP, "sparsity"),
            *_panel("learning rate", lower, f"{highest:.2g}"),
            _line(rates, end, highest, lower, "rate"),
            *_epochs(end),
            "</svg>\n",
        ]
    )


def _sparsities(plan: Timeline, end: float) -> Points:
    """Stairs: what the last pruning asked for, none after its targets were let grow dense."""
    now, points = 0.0, [(0.0, 0.0)]
    for item in plan.dated:
        if isinstance(item.action, Prune | Densify):
            then = item.action.sparsity if isinstance(item.action, Prune) else 0.0
            points += [(item.epoch, now), (item.epoch, then)]
            now = then
    return [*points, (end, now)]


def _rates(plan: Timeline, end: float, step: float) -> Points:
    grid = {k * end / _SAMPLES for k in range(_SAMPLES)}
    # Both sides of each restart, so that a saw tooth is drawn sharp.
    grid |= {max(rate.start - step, 0.0) for rate in plan.rates} | {rate.start for rate in plan.rates}
    return [(epoch, plan.learning_rate(epoch, step)) for epoch in sorted(grid) if epoch < end]


def _panel(name: str, top: float, highest: str) -> list[str]:
    bottom = top + _PANEL
    return [
        f'<text x="{_LEFT}" y="{top - 8:.0f}">{name}</text>',
        f'<path class="axis" d="M{_LEFT},{top:.1f} V{bottom:.1f} H{_WIDTH - _RIGHT}"/>',
        f'<text class="right" x="{_LEFT - 6}" y="{top + 10:.0f}">{highest}</text>',
        f'<text class="right" x="{_LEFT - 6}" y="{bottom:.0f}">0</text>',
    ]


def _line(points: Points, end: float, highest: float, top: float, kind: str) -> str:
    placed = " ".join(f"{_x(epoch, end):.1f},{top + _PANEL * (1 - value / highest):.1f}" for epoch, value in points)
    return f'<polyline class="line {kind}" points="{placed}"/>'


def _epochs(end: float) -> list[str]:
    ticks = [end * k / 5 for k in range(6)]
    labels = [
        f'<text class="middle" x="{_x(epoch, end):.1f}" y="{_HEIGHT - _BOTTOM + 16}">{epoch:g}</text>'
        for epoch in ticks
    ]
    return [*labels, f'<text class="middle" x="{_x(end / 2, end):.1f}" y="{_HEIGHT - 6}">epoch</text>']


def _x(epoch: float, end: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * epoch / end
