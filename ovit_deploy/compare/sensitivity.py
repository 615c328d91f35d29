"""Sensitivity: what the loss does when one layer alone is pruned, at each sparsity.

Predicted from oViT's curves, which one pass over the gradients gives for all layers: the first k removals of a block
cost the sum of their marginal losses, and within a layer the allocation rule spreads its zeros over blocks
(allocation.py). Measured, if asked for: the layer's kept weights take their best values, and the model with this layer
alone pruned runs over the calibration images. Test images are not looked at: what is chosen by a sensitivity must not
have seen them.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch

from ovit_deploy.compare.subject import Subject
from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.pruning import OViT, Pruned, apply
from ovit_deploy.pruning.allocation import Curve, Rule, allocate
from ovit_deploy.pruning.batch_norm import recalibrate
from ovit_deploy.pruning.second_order import check_gradients, settle
from ovit_deploy.pruning.streaming import Problem, Solution, eliminate_all


@dataclass(frozen=True)
class Point:
    """One layer at one sparsity, all others dense.

    Args:
        layer: Name of the weight.
        weights: How many it has.
        sparsity: Fraction of zeros asked for.
        zeros: Weights that are zero then.
        predicted_loss: Increase of the loss by the Fisher curves.
        measured_loss: Increase of the calibration loss; None if not measured.
        top1: On the calibration images; None if not measured.
        interval95: Wilson's 95 % interval of it.
    """

    layer: str
    weights: int
    sparsity: float
    zeros: int
    predicted_loss: float
    measured_loss: float | None = None
    top1: float | None = None
    interval95: tuple[float, float] | None = None


def sensitivity(
    subject: Subject,
    method: OViT,
    sparsities: Sequence[float],
    *,
    measure: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> list[Point]:
    """Points of every layer at every sparsity, layers in the order of the model.

    Raises:
        PruningError: As of oViT; or a sparsity is not that of its pattern.
    """
    assert subject.calibration.num_samples >= method.num_grads
    problem = method.problem(subject.model, subject.masks, subject.calibration, report)
    check_gradients(subject.model, subject.masks, subject.calibration, method.num_grads)
    problem.scheme.pattern.weights(subject.model, subject.masks)
    solution = eliminate_all(problem)
    points: list[Point] = []
    for name, part, found in _layers(problem, solution, with_fishers=measure):
        report(name)
        for sparsity in sparsities:
            point = _predicted(name, part, found, sparsity, method.allocation)
            points.append(_measured(subject, part, found, point, method.allocation) if measure else point)
    return points


def _layers(problem: Problem, solution: Solution, *, with_fishers: bool) -> Iterator[tuple[str, Problem, Solution]]:
    """Each layer as a problem and a solution of its own; its Fisher blocks are taken again if they were not kept."""
    for name, mask in problem.masks.items():
        part = replace(problem, masks={name: mask})
        if with_fishers and solution.fishers is None:
            yield name, part, eliminate_all(part)
            continue
        blocks = solution.fishers.blocks if solution.fishers else {}
        own = {span: held for span, held in blocks.items() if span.name == name}
        fishers = replace(solution.fishers, blocks=own) if solution.fishers else None
        groups = [[span for span in group if span.name == name] for group in solution.groups]
        groups = [group for group in groups if group]
        yield (
            name,
            part,
            Solution({name: solution.curves[name]}, {name: solution.jitter[name]}, groups, solution.mean_loss, fishers),
        )


def _predicted(name: str, part: Problem, found: Solution, sparsity: float, rule: Rule) -> Point:
    zeros, curve = part.scheme.pattern.num_zeros(part.masks, sparsity), found.curves[name]
    counts_K = allocate(found.curves, zeros // part.scheme.pattern.unit, rule=rule)[name]
    return Point(name, part.masks[name].numel(), sparsity, zeros, first_steps(curve, counts_K))


def first_steps(curve: Curve, counts_K: torch.Tensor) -> float:
    """Loss of the first ``counts_K`` removals of each block."""
    taken_KB = (curve.rank_KB > 0) & (curve.rank_KB <= counts_K[:, None])
    return float(curve.marginal_KB.double()[taken_KB].sum())


def _measured(subject: Subject, part: Problem, found: Solution, point: Point, rule: Rule) -> Point:
    pruned: Pruned = settle(replace(part, report=lambda _: None), found, point.zeros, rule)
    candidate = deepcopy(subject.model)
    apply(candidate, pruned)
    recalibrate(candidate, subject.calibration.batches())
    result = evaluate(candidate, subject.calibration.batches())
    return replace(
        point,
        measured_loss=result.loss - subject.loss,
        top1=result.accuracy.top1,
        interval95=result.accuracy.interval,
    )
