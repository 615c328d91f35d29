"""Medians and percentiles of latencies that were measured in blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovit_deploy.bench.verdict import RESAMPLES, expanded_tail


@dataclass(frozen=True)
class Latency:
    """What ``num_runs`` runs took, in ms, and the images a second that this comes to."""

    num_runs: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    images_per_s: float


def summarize(blocks_ms: Sequence[Sequence[float]], batch_size: int) -> Latency:
    """Latency over all runs of all blocks.

    Args:
        blocks_ms: latencies in ms, one sequence a block.
        batch_size: images a run.
    """
    runs_ms = np.concatenate([np.asarray(block) for block in blocks_ms])
    median, p90, p99 = np.percentile(runs_ms, [50, 90, 99])
    images_per_s = 1000 * batch_size * len(runs_ms) / runs_ms.sum()
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
