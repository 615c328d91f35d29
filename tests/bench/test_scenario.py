"""The scenarios on real processes of ONNX Runtime."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from ovit_deploy.bench import scenario
from ovit_deploy.bench.latency import Settings, measure_latency
from ovit_deploy.bench.source import Source
from ovit_deploy.bench.subject import Subject, prepare
from ovit_deploy.engines import environments
from ovit_deploy.engines.process import Block, EngineProcess


@pytest.fixture
def subject(sparse: Source, tmp_path: Path) -> Subject:
    return prepare(sparse, batch_size=2, seed=0, folder=tmp_path)


@pytest.fixture
def streams(subject: Subject) -> Iterator[list[EngineProcess]]:
    with ExitStack() as stack:
        environment = environments.prepare("onnxruntime", print)
        found = [stack.enter_context(EngineProcess("onnxruntime", environment, timeout_s=60)) for _ in range(2)]
        for one in found:
            one.load(subject.variants[0].path, subject.images, batch_size=2, threads=1)
        yield found


def test_offline_counts_all_streams_from_the_first_beginning_to_the_last_end(streams: list[EngineProcess]) -> None:
    block = scenario.run_together(streams, 50)
    assert len(block.latencies_ms) == 100
    assert 1000 * block.seconds >= sum(block.latencies_ms[:50])
    assert 1000 * block.seconds >= sum(block.latencies_ms[50:])


def test_queries_are_answered_no_earlier_than_they_arrive(streams: list[EngineProcess]) -> None:
    block = streams[0].serve([0.0, 0.05, 0.1])
    assert block.seconds >= 0.1
    assert len(block.latencies_ms) == 3
    assert min(block.latencies_ms) > 0


def test_queries_that_arrive_at_once_wait_for_each_other(streams: list[EngineProcess]) -> None:
    latencies_ms = streams[0].serve([0.0] * 30).latencies_ms
    assert latencies_ms == sorted(latencies_ms)


def test_arrivals_are_poisson_and_the_same_for_all_with_the_same_seed() -> None:
    class Recorder:
        def serve(self, arrivals_s: list[float]) -> Block:
            return Block(arrivals_s, 0, 1)

    def arrivals(seed: tuple[int, ...]) -> list[float]:
        run = scenario.runner("server", [Recorder()], 200.0, seed)  # type: ignore[list-item]
        return run(4000).latencies_ms

    assert arrivals((0, 1)) == arrivals((0, 1)) != arrivals((0, 2))
    gaps = np.diff([0, *arrivals((0, 1))])
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.05)
    assert gaps.std() == pytest.approx(1 / 200, rel=0.05)


def test_offline_compares_the_time_that_a_run_takes_of_all_streams() -> None:
    block = Block([10.0, 12.0, 11.0, 11.0], began_s=5.0, ended_s=5.024)
    assert scenario.figures_ms("offline", block) == pytest.approx([6.0])
    assert scenario.figures_ms("single_stream", block) == block.latencies_ms


def test_an_offline_row_has_its_streams_and_throughput(subject: Subject) -> None:
    settings = Settings(("onnxruntime",), iterations=6, scenario="offline", streams=2, timeout_s=60)
    row, _ = measure_latency(subject, settings)
    assert (row.scenario, row.streams) == ("offline", 2)
    assert row.latency
    assert row.latency.num_runs == 12
    assert row.latency.images_per_s == pytest.approx(24 / sum(row.blocks_s))
    assert row.vs_dense


def test_a_server_row_says_how_many_queries_arrived(subject: Subject) -> None:
    settings = Settings(("onnxruntime",), iterations=6, scenario="server", rate=100.0, timeout_s=60)
    row, _ = measure_latency(subject, settings)
    assert (row.scenario, row.rate) == ("server", 100.0)
    assert row.latency
    assert row.latency.num_runs == 6


def test_without_a_rate_a_server_gets_less_than_the_slowest_can_do(subject: Subject) -> None:
    rows = measure_latency(subject, Settings(("onnxruntime",), iterations=2, scenario="server", timeout_s=60))
    assert rows[0].rate == rows[1].rate
    assert rows[0].rate


def test_every_process_is_fresh_and_its_rounds_are_kept_apart(subject: Subject) -> None:
    row, dense = measure_latency(subject, Settings(("onnxruntime",), iterations=12, processes=2, timeout_s=60))
    assert row.processes == 2
    assert [sum(map(len, rounds)) for rounds in row.blocks_ms] == [6] * 2
    assert row.latency
    assert row.latency.num_runs == 12
    assert row.vs_dense
    assert dense.peak_mib


def test_an_engine_runs_on_the_cores_it_was_given(subject: Subject) -> None:
    core = max(os.sched_getaffinity(0))
    environment = environments.prepare("onnxruntime", print)
    with EngineProcess("onnxruntime", environment, timeout_s=60, cores=[core]) as process:
        process.load(subject.variants[0].path, subject.images, batch_size=2, threads=1)
        tasks = Path(f"/proc/{process.pid}/task").iterdir()
        assert {core} == set().union(*(os.sched_getaffinity(int(task.name)) for task in tasks))


def test_extra_work_makes_runs_longer_by_that_fraction(subject: Subject) -> None:
    """Every run takes at least as much longer as was asked for; a busy machine only adds."""
    environment = environments.prepare("onnxruntime", print)
    with EngineProcess("onnxruntime", environment, timeout_s=60, extra=200.0) as process:
        process.load(subject.variants[0].path, subject.images, batch_size=2, threads=1)
        slowed = process.run(20)
        process.extra = 0.0
        assert min(slowed) > 50 * min(process.run(20))
