"""A recipe as a picture: sparsity and learning rate over the epochs, one SVG file without any other."""

from collections.abc import Sequence

from ovit_deploy.drawing import panels
from ovit_deploy.drawing.panels import Panel
from ovit_deploy.recipe.timeline import Densify, Prune, Timeline

_SAMPLES = 600
Points = Sequence[tuple[float, float]]


def figure(plan: Timeline, title: str, *, steps_per_epoch: int = 100) -> str:
    """The picture of ``plan`` as the text of an SVG file; a step is drawn as if there were so many an epoch."""
    end = plan.num_epochs or 1.0
    rates = _rates(plan, end, 1 / steps_per_epoch)
    highest = max(rate for _, rate in rates) or 1.0
    curves = [
        Panel("sparsity", _sparsities(plan, end), 1.0, "100 %"),
        Panel("learning rate", rates, highest, f"{highest:.2g}"),
    ]
    return panels.figure(curves, end, title)


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
