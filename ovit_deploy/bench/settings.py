"""How to measure, and who is told of the progress."""

from collections.abc import Callable
from dataclasses import dataclass

from ovit_deploy.bench.scenario import Scenario


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        engines: names, with options where there are any, in the order of the rows.
        threads: of each engine.
        duration_s: timed seconds a contestant; not used when ``iterations`` is set.
        iterations: timed runs a contestant.
        seed: of the order of blocks, of arrivals and of the bootstrap.
        timeout_s: how long one step of an engine may take.
        processes: fresh processes a contestant, one after the other; they share the time.
        scenario: how runs follow each other.
        rate: queries a second that arrive, for the scenario ``server``; by default 70 % of what the slowest can do.
        streams: processes of a contestant that run at the same time, for the scenario ``offline``.
        cores: ``threads`` times ``streams`` cores to run on; wherever the system likes by default.
        evidence: whether to profile every contestant after it was timed.
        dense_only: those of the engines that run no variant with zeros.
    """

    engines: tuple[str, ...]
    threads: int = 1
    duration_s: float = 10.0
    iterations: int | None = None
    seed: int = 0
    timeout_s: float = 600.0
    processes: int = 1
    scenario: Scenario = "single_stream"
    rate: float | None = None
    streams: int = 1
    cores: tuple[int, ...] = ()
    evidence: bool = False
    dense_only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Watch:
    """Who is told what happens: a line of text, and rounds done of all rounds."""

    report: Callable[[str], None] = lambda text: None
    on_round: Callable[[int, int], None] = lambda done, total: None
