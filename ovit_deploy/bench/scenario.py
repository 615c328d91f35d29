"""How a block of runs goes, by the names of MLPerf Inference (Reddi et al., arXiv 1911.02549, §3.2).

    single_stream   one query after the other: the latency of a run is the figure
    offline         all work is there from the start: several processes run at once, and images a second is the figure
    server          queries arrive at random (Poisson): the latency counts from the arrival, its p99 is the figure

A query is a batch. The server is real: the engine's process waits for each arrival and answers in order, in one line.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import Literal

import numpy as np

from ovit_deploy.engines.process import Block, EngineProcess

Scenario = Literal["single_stream", "offline", "server"]
LOAD = 0.7
SERVER_BLOCK_MS = 2000.0


def runner(
    scenario: Scenario, streams: Sequence[EngineProcess], rate: float | None, seed: Sequence[int]
) -> Callable[[int], Block]:
    """What runs a block of so many runs.

    Args:
        scenario: one of the three.
        streams: processes with the same model; one, but for ``offline``.
        rate: queries a second that arrive, for ``server``.
        seed: of the arrivals; contestants with the same seed get the same ones.
    """
    if scenario == "offline":
        return lambda count: run_together(streams, count)
    if scenario == "server":
        assert rate
        random = np.random.default_rng(list(seed))
        return lambda count: streams[0].serve(np.cumsum(random.exponential(1 / rate, count)).tolist())
    return streams[0].time


def run_together(streams: Sequence[EngineProcess], count: int) -> Block:
    """``count`` runs in every process at the same time, from the first one's beginning to the last one's end."""
    if len(streams) == 1:
        return streams[0].time(count)
    with ThreadPoolExecutor(len(streams)) as pool:
        blocks = list(pool.map(lambda stream: stream.time(count), streams))
    waited = [block.waited_s for block in blocks if block.waited_s is not None]
    return replace(
        blocks[0],
        latencies_ms=list(chain.from_iterable(block.latencies_ms for block in blocks)),
        began_s=min(block.began_s for block in blocks),
        ended_s=max(block.ended_s for block in blocks),
        waited_s=sum(waited) / len(waited) if waited else None,
    )


def figures_ms(scenario: Scenario, block: Block) -> list[float]:
    """What is compared of a block: its latencies, or offline the ms that a run took of all streams' time."""
    if scenario == "offline":
        return [1000 * block.seconds / len(block.latencies_ms)]
    return block.latencies_ms
