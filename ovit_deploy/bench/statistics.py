"""Medians and percentiles of latencies that were measured in blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovit_deploy.bench.verdict import RESAMPLES, expanded_tail


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p-value of McNemar's exact test: do two classifiers err equally often?

    Images that both tell right, or both wrong, say nothing. Of the n others, those that only the first tells right
    are Binomial(n, 1/2) if both are equally good; p = min(1, 2 P(X <= the smaller count)) (McNemar, Psychometrika 12,
    1947; the exact form: Fay, Two-sided Exact Tests, The R Journal 2(1), 2010).

    Args:
        only_first: images that only the first classifier tells right.
        only_second: images that only the second one does.
    """
    total, smaller = only_first + only_second, min(only_first, only_second)
    steps = np.log(total - np.arange(smaller)) - np.log(np.arange(smaller) + 1)
    log_terms = np.concatenate([[0.0], np.cumsum(steps)]) - total * np.log(2)
    return min(1.0, 2 * float(np.exp(log_terms).sum()))


@dataclass(frozen=True)
class Latency:
    """What ``num_runs`` runs took, in ms, and the images a second that this comes to."""

    num_runs: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    images_per_s: float


def summarize(blocks_ms: Sequence[Sequence[float]], batch_size: int, seconds: float | None = None) -> Latency:
    """Latency over all runs of all blocks.

    Args:
        blocks_ms: latencies in ms, one sequence a block.
        batch_size: images a run.
        seconds: that all blocks took; the sum of the latencies by default, which holds where no two runs overlap.
    """
    runs_ms = np.concatenate([np.asarray(block) for block in blocks_ms])
    median, p90, p99 = np.percentile(runs_ms, [50, 90, 99])
    images_per_s = batch_size * len(runs_ms) / (runs_ms.sum() / 1000 if seconds is None else seconds)
    fastest = runs_ms.min()
    return Latency(len(runs_ms), *(float(value) for value in (median, p90, p99, fastest, images_per_s)))


def median_interval(units_ms: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of the median over units of a unit's median, in ms; None for fewer than two units.

    Args:
        units_ms: latencies in ms, one sequence for each block or process.
        seed: of the draw.
    """
    medians = np.array([np.median(unit) for unit in units_ms])
    if len(medians) < 2:
        return None
    draws = np.random.default_rng(seed).integers(len(medians), size=(RESAMPLES, len(medians)))
    tail = expanded_tail(len(medians))
    low, high = np.quantile(np.median(medians[draws], axis=1), [tail, 1 - tail])
    return float(low), float(high)


def units(blocks: Sequence[Any]) -> list[list[float]]:
    """Timed runs by unit, from a result's JSON; what lies deeper, such as the blocks of a process, is one unit."""
    found = [list(_numbers(block)) for block in blocks]
    return [unit for unit in found if unit]


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    else:
        yield float(value)
