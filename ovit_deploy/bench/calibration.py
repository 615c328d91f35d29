"""Measuring the measuring: a file against itself (A/A), and against itself made slower by a known amount.

In an A/A run every verdict ``faster`` or ``slower`` is false. The slower contestant is the same engine with the same
file in a process that works longer after every run, by a fraction of that run. On an idle core it is slower by just so
much; on a busy one by more, because who works longer is also interrupted more often: what was measured is told too.
"""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist, stdev

import numpy as np

from ovit_deploy.bench import verdict
from ovit_deploy.bench.contestant import Contestant
from ovit_deploy.bench.latency import figures_ms, take_part
from ovit_deploy.bench.settings import Settings, Watch
from ovit_deploy.bench.subject import Subject
from ovit_deploy.bench.verdict import SpeedUp


@dataclass(frozen=True)
class Calibration:
    """What came out of benchmarks whose truth is known.

    Args:
        same: speed-ups of the file over itself, one a benchmark.
        planted: the slow-down of the third contestant, as a fraction; 0 for none.
        slowed: speed-ups of the slowed contestant, one a benchmark.
        false_rate: fraction of ``same`` called faster or slower.
        surprise: how often chance gives as many false verdicts or more, were one in twenty false.
        found_rate: fraction of ``slowed`` called slower; None where nothing was planted.
        measured: how much slower ``slowed`` really was, by the median over benchmarks; None likewise.
        detectable: the difference that would be found 19 times in 20, as a fraction.
        start_spread: standard deviation of the log of a process's median over that of its neighbour, by sqrt(2).
    """

    same: list[SpeedUp]
    planted: float
    slowed: list[SpeedUp]
    false_rate: float
    surprise: float
    found_rate: float | None
    measured: float | None
    detectable: float
    start_spread: float


def calibrate(
    subject: Subject, engine: str, settings: Settings, watch: Watch, *, runs: int, planted: float = 0.0
) -> Calibration:
    """Benchmark the first variant of ``subject`` against itself, ``runs`` times, each with fresh processes.

    Args:
        subject: from ``subject.prepare``.
        engine: its name, with options where there are any.
        settings: as of any benchmark.
        watch: is told of the progress.
        runs: how many benchmarks.
        planted: how much slower a third contestant is made, as a fraction of its time.

    Raises:
        EngineError: the engine failed.
    """
    same, slowed, ratios = [], [], []
    for number in range(runs):
        watch.report(f"benchmark {number + 1} of {runs}")
        once = replace(settings, seed=settings.seed + 1000 * number, evidence=False)
        extras = (0.0, 0.0, planted) if planted else (0.0, 0.0)
        sides = [Contestant(engine, subject.variants[0], extra) for extra in extras]
        take_part(sides, subject, once, watch, compare=not number)
        for side in sides:
            if side.error:
                raise side.error
        first, second, *third = ([*figures_ms(side, once)] for side in sides)
        same.append(verdict.over_processes(first, second, once.seed))
        slowed += [verdict.over_processes(first, slow, once.seed) for slow in third]
        ratios += [math.log(_median(one) / _median(other)) for one, other in zip(first, second, strict=True)]
    return conclude(same, planted, slowed, ratios)


def conclude(same: list[SpeedUp], planted: float, slowed: list[SpeedUp], log_ratios: list[float]) -> Calibration:
    """Rates of right and wrong verdicts.

    The detectable difference: an interval excludes 1 when the estimate is further from it than its half width, so the
    true difference must be that half width and 1.645 standard deviations of the estimates.

    Args:
        same: speed-ups of equals.
        planted: the slow-down of ``slowed``.
        slowed: speed-ups of what was slowed by ``planted``.
        log_ratios: log of the ratio of two equal processes' medians.
    """
    false = sum(one.verdict in ("faster", "slower") for one in same)
    half_widths = [math.log(one.high / one.low) / 2 for one in same]
    spread = stdev([math.log(one.factor) for one in same]) if len(same) > 1 else 0.0
    return Calibration(
        same=same,
        planted=planted,
        slowed=slowed,
        false_rate=false / len(same),
        surprise=_at_least(false, len(same)),
        found_rate=sum(one.verdict == "slower" for one in slowed) / len(slowed) if slowed else None,
        measured=1 / float(np.median([one.factor for one in slowed])) - 1 if slowed else None,
        detectable=math.expm1(float(np.median(half_widths)) + NormalDist().inv_cdf(0.95) * spread),
        start_spread=stdev(log_ratios) / math.sqrt(2) if len(log_ratios) > 1 else 0.0,
    )


def _at_least(false: int, total: int, rate: float = 0.05) -> float:
    """P(X >= ``false``) for X of Binomial(``total``, ``rate``)."""
    return sum(math.comb(total, k) * rate**k * (1 - rate) ** (total - k) for k in range(false, total + 1))


def _median(process: list[list[float]]) -> float:
    return float(np.median(np.concatenate([np.asarray(block) for block in process])))
