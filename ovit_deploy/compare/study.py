"""The paper's one-shot figure on any model and data: methods x sparsities -> one cell each.

    for method in methods:
        prepare                                     # gradients, elimination: once for all sparsities where it can be
        for sparsity in sparsities:
            pruned <- method                        # the dense model is where every cell starts
            calibration loss of the pruned model    # measured, beside the one that the method predicts
            train for some epochs                   # only with a recovery; the dense model gets the same
            top-1 on the test images                # the only look at them
            append the cell to the journal

A method that fails costs its own cells only.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ovit_deploy.compare.cells import DENSE, Cell, Journal
from ovit_deploy.compare.cost import Cost, metered
from ovit_deploy.compare.methods import settings
from ovit_deploy.compare.recover import Recovery
from ovit_deploy.compare.subject import Subject
from ovit_deploy.errors import OvitError, PruningError
from ovit_deploy.finetune import masks as masking
from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.pruning import Method, Pruned, Report, apply
from ovit_deploy.pruning.batch_norm import recalibrate
from ovit_deploy.pruning.sweep import Sweep


@dataclass(frozen=True)
class Failure:
    """A method that could not go on: the sparsity it was at (none while it prepared), what was wrong, what to do."""

    method: str
    sparsity: float | None
    error: str
    hint: str


@dataclass(frozen=True)
class Study:
    """What is compared, on what, and where finished cells go.

    Args:
        subject: The dense model and its images.
        journal: Cells that it holds are not done again.
        recovery: Training for every cell; None compares one-shot.
        report: Told what goes on.
    """

    subject: Subject
    journal: Journal
    recovery: Recovery | None = None
    report: Callable[[str], None] = lambda _: None


def compare(
    study: Study, methods: Mapping[str, Method], sparsities: Sequence[float]
) -> tuple[list[Cell], list[Failure]]:
    """The cells of all methods at all sparsities, the dense model's first, and what failed."""
    cells = [study.journal.find(DENSE, 0.0, {}) or _dense(study)]
    failures: list[Failure] = []
    for name, method in methods.items():
        # All are looked up before the first is done, so that a clash of settings is told at once.
        found = {sparsity: study.journal.find(name, sparsity, settings(method)) for sparsity in sparsities}
        missing = [sparsity for sparsity, cell in found.items() if cell is None]
        if missing:
            failures += _run(study, name, method, missing)
        cells += [cell for s in sparsities if (cell := study.journal.find(name, s, settings(method)))]
    return cells, failures


def _run(study: Study, name: str, method: Method, sparsities: Sequence[float]) -> list[Failure]:
    """One method at the sparsities that are missing; finished cells go to the journal."""
    subject, sweep, at = study.subject, Sweep(method), None
    try:
        study.report(f"{name}: preparing")
        with metered() as shared:
            sweep.prepare(subject.model, subject.masks, calibration=subject.calibration, report=_indented(study.report))
        for at in sparsities:
            with metered() as own:
                pruned = sweep.prune(
                    subject.model,
                    subject.masks,
                    sparsity=at,
                    calibration=subject.calibration,
                    report=_indented(study.report),
                )
            cell = _cell(study, name, method, at, pruned, shared, own)
            study.journal.add(cell)
            study.report(f"{name} at {at:.0%}: top-1 {cell.top1:.2%}")
    except OvitError as error:
        return [Failure(name, at, error.message, error.hint)]
    return []


def _cell(study: Study, name: str, method: Method, sparsity: float, pruned: Pruned, shared: Cost, own: Cost) -> Cell:
    candidate = deepcopy(study.subject.model)
    apply(candidate, pruned)
    recalibrate(candidate, study.subject.calibration.batches())
    before = shared.peak_bytes - shared.extra_bytes
    peak_bytes = max(shared.peak_bytes, own.peak_bytes)
    return Cell(
        method=name,
        settings=settings(method),
        sparsity=sparsity,
        zeros=masking.sparsity(pruned.masks),
        predicted_loss=pruned.predicted_loss,
        seconds=shared.seconds + own.seconds,
        shared_seconds=shared.seconds,
        peak_bytes=peak_bytes,
        extra_bytes=peak_bytes - before,
        details=_without_volatile(pruned.details),
        **_measured(study, candidate, pruned.masks),
    )


def _dense(study: Study) -> Cell:
    """The model that nothing is removed from, trained as long as the others."""
    study.report("the dense model")
    facts = _measured(study, deepcopy(study.subject.model), study.subject.masks)
    cell = Cell(method=DENSE, settings={}, sparsity=0.0, zeros=0.0, **facts)
    study.journal.add(cell)
    return cell


def _measured(study: Study, model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Any]:
    """Calibration loss right after pruning, then training if there is any, then top-1; ``model`` is used up."""
    loss = evaluate(model, study.subject.calibration.batches()).loss
    if not math.isfinite(loss):
        raise PruningError(f"the calibration loss is {loss} after pruning", "raise the method's damping")
    training = None
    if study.recovery is not None:
        started = time.perf_counter()
        training = study.recovery.train(model, masks) | {"seconds": time.perf_counter() - started}
    accuracy = evaluate(model, study.subject.test).accuracy
    return {
        "calibration_loss": loss,
        "measured_loss": loss - study.subject.loss,
        "training": training,
        **accuracy.as_dict(),
    }


def _indented(report: Report) -> Report:
    """What a method tells, under the line that tells of it."""
    return lambda text: report(f"  {text}")


def _without_volatile(details: dict[str, Any]) -> dict[str, Any]:
    """A method's own record, without how much memory happened to be free."""
    return {key: value for key, value in details.items() if key != "memory_budget"}
