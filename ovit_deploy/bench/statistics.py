"""Medians and percentiles of latencies that were measured in blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
