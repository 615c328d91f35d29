"""Is one thing faster than another? A ratio of latencies with its 95 % interval, and what it says.

The unit is what was drawn independently: a pair of fresh processes, or a round of blocks where there are fewer than
six of those. In a unit both sides ran in turns, so what slowed the machine down then slowed both: units are compared
in pairs. What differs from one start of a process to the next (addresses, placement of memory) is not in the rounds
of few processes, so there the interval is widened by what such starts usually differ in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

Verdict = Literal["faster", "slower", "equivalent", "inconclusive"]
RESAMPLES = 2000
MIN_UNITS = 6
EQUIVALENT = 0.02
START_SPREAD = 0.01  # standard deviation of a process's median between starts, as a fraction; --calibrate measures it
Units = Sequence[Sequence[float]]
Processes = Sequence[Units]
_NORMAL = NormalDist()


@dataclass(frozen=True)
class SpeedUp:
    """How many times faster than something else.

    Args:
        factor: above 1 is faster.
        low: lower end of the 95 % interval.
        high: its upper end.
        verdict: what the interval says.
    """

    factor: float
    low: float
    high: float
    verdict: Verdict


def speed_up(dense_ms: Units, sparse_ms: Units, seed: int) -> SpeedUp:
    """The median over units of the ratio of a unit's medians, dense over sparse, with a bootstrap interval.

    Units are drawn with replacement, the same ones for both sides (Efron & Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 8). The interval is that of expanded percentiles: plain ones are too narrow for few
    units (Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69, 2015, §5.3).

    Args:
        dense_ms: latencies in ms, one sequence a unit.
        sparse_ms: the same of the other side; unit i of both ran side by side.
        seed: of the draw.
    """
    ratios = _ratios(dense_ms, sparse_ms)
    draws = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    return _conclude(float(np.median(ratios)), np.median(ratios[draws], axis=1), len(ratios))


def over_processes(dense_ms: Processes, sparse_ms: Processes, seed: int) -> SpeedUp:
    """The speed-up over pairs of fresh processes, each with several rounds.

    From six pairs on, the figure of a pair is the median over its rounds, and the bootstrap draws pairs, then rounds of
    each (Davison & Hinkley, Bootstrap Methods and their Application, 1997, §3.8). With fewer, rounds are the units and
    the interval is widened to exp(+-1.96 ``START_SPREAD`` sqrt(2 / pairs)) times itself.

    Args:
        dense_ms: latencies in ms, by process, round and run.
        sparse_ms: the same of the other side; round i of process p of both ran side by side.
        seed: of the draw.
    """
    pairs = [_ratios(*sides) for sides in zip(dense_ms, sparse_ms, strict=True)]
    if len(pairs) < MIN_UNITS:
        dense, sparse = ([unit for process in side for unit in process] for side in (dense_ms, sparse_ms))
        return _widened(speed_up(dense, sparse, seed), len(pairs), units=min(len(dense), len(sparse)))
    ratios_PR = np.array([pair[: min(map(len, pairs))] for pair in pairs])
    num_pairs, num_rounds = ratios_PR.shape
    random = np.random.default_rng(seed)
    pairs_SP1 = random.integers(num_pairs, size=(RESAMPLES, num_pairs, 1))
    rounds_SPR = random.integers(num_rounds, size=(RESAMPLES, num_pairs, num_rounds))
    drawn_S = np.median(np.median(ratios_PR[pairs_SP1, rounds_SPR], axis=2), axis=1)
    return _conclude(float(np.median(np.median(ratios_PR, axis=1))), drawn_S, num_pairs)


def _ratios(dense_ms: Units, sparse_ms: Units) -> Any:
    """The ratio of medians of every unit that both sides have."""
    units = range(min(len(dense_ms), len(sparse_ms)))
    return np.array([np.median(dense_ms[unit]) / np.median(sparse_ms[unit]) for unit in units])


def _conclude(factor: float, drawn: Any, units: int) -> SpeedUp:
    """A factor with the interval of its bootstrap draws, and the verdict."""
    tail = expanded_tail(units)
    low, high = map(float, np.quantile(drawn, [tail, 1 - tail]))
    return SpeedUp(factor, low, high, judge(low, high, units))


def _widened(found: SpeedUp, pairs: int, *, units: int) -> SpeedUp:
    """With the spread between starts of processes in the interval."""
    margin = math.exp(_NORMAL.inv_cdf(0.975) * START_SPREAD * math.sqrt(2 / pairs))
    low, high = found.low / margin, found.high * margin
    return SpeedUp(found.factor, low, high, judge(low, high, units))


def judge(low: float, high: float, units: int) -> Verdict:
    """What an interval of a speed-up says.

    ``equivalent``: all of it within 2 % of 1, even where it excludes 1: a difference nobody would notice.
    ``inconclusive``: it holds 1 and more than that, or rests on fewer than six units: of five, both ends
    together miss the truth more often than once in twenty, however they are computed.
    """
    if units < MIN_UNITS:
        return "inconclusive"
    if low >= 1 - EQUIVALENT and high <= 1 + EQUIVALENT:
        return "equivalent"
    return "faster" if low > 1 else "slower" if high < 1 else "inconclusive"


def expanded_tail(units: int) -> float:
    """The fraction to cut from each end of the bootstrap's distribution for a 95 % interval.

    With n units the bootstrap's standard error lacks a factor sqrt(n / (n - 1)) and its percentiles are those of a
    normal instead of Student's t; the tail is Phi(-sqrt(n / (n - 1)) t_{0.975, n - 1}).
    """
    if units < 2:
        return 0.0
    return _NORMAL.cdf(-math.sqrt(units / (units - 1)) * student_975(units - 1))


def student_975(freedom: int) -> float:
    """The 0.975 quantile of Student's t, expanded around the normal one.

    Abramowitz & Stegun, Handbook of Mathematical Functions, 26.7.5; within 0.1 % from 4 degrees of freedom on.
    """
    z, n = _NORMAL.inv_cdf(0.975), freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )
