"""Top-1 of every contestant through its engine, and whether it differs from the baseline's.

The baseline is ONNX Runtime: on the model without zeros where that is measured (not on a dense twin, whose answers mean
nothing), else on the same file. Both look at the same images, so what is compared are those that only one tells right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovit_deploy.accuracy import Accuracy
from ovit_deploy.bench.contestant import Contestant
from ovit_deploy.bench.settings import Watch
from ovit_deploy.bench.statistics import mcnemar
from ovit_deploy.bench.subject import Subject
from ovit_deploy.engines.accuracy import save_whole, told_right


@dataclass(frozen=True)
class Top1:
    """What a contestant told right of the test images.

    Args:
        top1: the fraction that is right.
        interval95: Wilson's interval.
        correct: how many are right.
        images: how many there are.
        data: which images, in words.
        baseline: whom it is compared with; None for the baseline itself, or without one.
        only_here: images that only this contestant tells right, and not the baseline.
        only_baseline: images that only the baseline tells right.
        p_value: of McNemar's exact test.
    """

    top1: float
    interval95: tuple[float, float]
    correct: int
    images: int
    data: str
    baseline: str | None = None
    only_here: int | None = None
    only_baseline: int | None = None
    p_value: float | None = None


def answer_all(contestants: Sequence[Contestant], subject: Subject, watch: Watch) -> None:
    """Let every contestant answer all test images with its process that lives; twins, whose weights are random, do not.

    Args:
        contestants: those that failed are left out; one that fails now is out from now on.
        subject: with labelled images.
        watch: is told of the progress.
    """
    assert subject.labelled
    asked = [one for one in contestants if not one.error and not one.variant.is_twin]
    watch.report(f"{len(asked)} answer {subject.labelled.name}")
    file = subject.images.with_name("labelled.npy")
    for images, labels in subject.labelled.batches():
        save_whole(file, images, subject.batch_size)
        for one in asked:
            one.attempt(lambda one, labels=labels: one.told_right.append(told_right(one.streams[0], file, labels)))


def conclude(one: Contestant, contestants: Sequence[Contestant], subject: Subject, baseline_engine: str) -> Top1 | None:
    """Its top-1, beside the baseline's; None if it answered nothing, or not everything."""
    if one.error or not one.told_right or not subject.labelled:
        return None
    ours = np.concatenate(one.told_right)
    found = Accuracy(int(ours.sum()), len(ours))
    facts = found.top1, found.interval, found.correct, found.total, subject.labelled.name
    baseline = _baseline(one, contestants, subject, baseline_engine)
    if baseline is None:
        return Top1(*facts)
    theirs = np.concatenate(baseline.told_right)
    only_here, only_baseline = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return Top1(*facts, baseline.name, only_here, only_baseline, mcnemar(only_here, only_baseline))


def _baseline(one: Contestant, contestants: Sequence[Contestant], subject: Subject, engine: str) -> Contestant | None:
    """Whom ``one`` is compared with; nobody, if it is the baseline or there is none."""
    dense = subject.dense
    variant = dense if dense and not dense.is_twin else one.variant
    found = [rival for rival in contestants if rival.engine == engine and rival.variant is variant]
    return next((rival for rival in found if rival is not one and rival.told_right and not rival.error), None)
