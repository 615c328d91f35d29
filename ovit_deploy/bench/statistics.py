"""Medians, percentiles and speed-ups of latencies that were measured in blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000


@dataclass(frozen=True)
class Latency:
    """What ``num_runs`` runs took, in ms, and the images a second that this comes to."""

    num_runs: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    images_per_s: float


@dataclass(frozen=True)
class SpeedUp:
    """How many times faster than something else; ``low`` to ``high`` is a 95 % interval."""

    factor: float
    low: float
    high: float


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


def speed_up(dense_ms: Sequence[Sequence[float]], sparse_ms: Sequence[Sequence[float]], seed: int) -> SpeedUp:
    """Ratio of medians, dense over sparse, with a bootstrap interval over rounds.

    Runs of one block are not independent, and blocks of one round share the state of the machine: so whole
    rounds are drawn with replacement, the same ones for both sides (Efron & Tibshirani, An Introduction to
    the Bootstrap, 1993, chapter 8).

    Args:
        dense_ms: latencies in ms, one sequence a round.
        sparse_ms: the same of the other side; round i of both ran side by side.
        seed: of the draw.
    """
    num_rounds = min(len(dense_ms), len(sparse_ms))
    draws = np.random.default_rng(seed).integers(num_rounds, size=(RESAMPLES, num_rounds))
    ratios = [_ratio(dense_ms, sparse_ms, draw) for draw in draws]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return SpeedUp(_ratio(dense_ms, sparse_ms, np.arange(num_rounds)), float(low), float(high))


def _ratio(dense_ms: Sequence[Sequence[float]], sparse_ms: Sequence[Sequence[float]], rounds: np.ndarray) -> float:
    dense = np.concatenate([dense_ms[index] for index in rounds])
    sparse = np.concatenate([sparse_ms[index] for index in rounds])
    return float(np.median(dense) / np.median(sparse))
