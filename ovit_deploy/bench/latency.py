"""Every engine with every variant of a model, each in processes of its own, timed in alternation."""

import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from statistics import median
from typing import TypeVar

import numpy as np

from ovit_deploy.bench import agreement, evidence, graph, measure, scenario, statistics, top1, verdict
from ovit_deploy.bench.contestant import Contestant
from ovit_deploy.bench.results import Row
from ovit_deploy.bench.settings import Settings, Watch
from ovit_deploy.bench.subject import Subject, Variant
from ovit_deploy.engines import environments
from ovit_deploy.engines.process import Block, EngineProcess
from ovit_deploy.errors import EngineError

__all__ = ["BASELINE", "Settings", "Watch", "measure_latency", "take_part"]
BASELINE = "onnxruntime"
T = TypeVar("T")


def measure_latency(subject: Subject, settings: Settings, watch: Watch | None = None) -> list[Row]:
    """A row for every variant on every engine; one that fails carries its reason and harms no other.

    Args:
        subject: from ``subject.prepare``.
        settings: engines, threads, how long.
        watch: is told of the progress.
    """
    contestants = [
        Contestant(name, variant)
        for name in settings.engines
        for variant in subject.variants
        if name not in settings.dense_only or variant in (subject.dense, subject.float_dense)
    ]
    settings = take_part(contestants, subject, settings, watch or Watch())
    return [_row(contestant, contestants, subject, settings) for contestant in contestants]


def take_part(
    contestants: Sequence[Contestant], subject: Subject, settings: Settings, watch: Watch, *, compare: bool = True
) -> Settings:
    """Time all contestants in one set of fresh processes after the other; returns the settings, the rate filled in.

    Args:
        contestants: those that fail carry their error afterwards.
        subject: what they run.
        settings: how they are measured.
        watch: is told of the progress.
        compare: whether their logits are compared with ONNX Runtime's; one who knows them already need not.
    """
    for number in range(settings.processes):
        if settings.processes > 1:
            watch.report(f"process {number + 1} of {settings.processes}")
        settings = _live_once(contestants, subject, settings, number, watch, compare=compare and not number)
    return settings


def _live_once(
    contestants: Sequence[Contestant], subject: Subject, settings: Settings, number: int, watch: Watch, *, compare: bool
) -> Settings:
    """The life of process ``number`` of every contestant."""
    order = random.Random(settings.seed + number).sample(contestants, len(contestants)) if number else contestants
    with ExitStack() as stack:
        for contestant in order:
            contestant.attempt(lambda one: one.start(subject, settings, stack, watch))
        if compare:
            _compare_logits(contestants, subject, settings, watch)
        timed = _take_turns(contestants, settings, number, watch)
        for contestant in contestants:
            contestant.attempt(Contestant.note_memory)
        if number == settings.processes - 1:
            if settings.evidence:
                _collect_evidence(contestants, subject, watch)
            if subject.labelled:
                top1.answer_all(contestants, subject, watch)
    return timed


def _compare_logits(contestants: Sequence[Contestant], subject: Subject, settings: Settings, watch: Watch) -> None:
    """Put out who computes something else than ONNX Runtime on the same file."""
    for variant in subject.variants:
        rivals = [one for one in contestants if one.variant is variant and not one.error]
        if variant.is_twin or not rivals:
            continue
        try:
            expected = _reference_logits(variant, subject, settings)
        except EngineError as error:
            watch.report(f"{variant.weights}: logits are not compared, {error.message}")
            continue
        for rival in rivals:
            rival.attempt(lambda one, logits=expected: _require_agreement(one, subject, logits))


def _reference_logits(variant: Variant, subject: Subject, settings: Settings) -> np.ndarray:
    environment = environments.prepare(BASELINE, lambda text: None)
    with EngineProcess(BASELINE, environment, timeout_s=settings.timeout_s) as process:
        process.load(variant.path, subject.images, batch_size=subject.batch_size, threads=settings.threads)
        return _logits(process, subject)


def _logits(process: EngineProcess, subject: Subject) -> np.ndarray:
    path = subject.images.with_name(f"logits_{process.pid}.npy")
    process.infer(subject.images, path)
    return np.load(path)


def _require_agreement(contestant: Contestant, subject: Subject, expected: np.ndarray) -> None:
    contestant.agreement = agreement.compare(_logits(contestant.streams[0], subject), expected)
    difference = contestant.agreement.max_abs_difference
    rounds = contestant.selection.rounds or contestant.variant.is_integer
    if not difference <= agreement.allowed(expected, rounds=rounds):
        raise EngineError(
            f"{contestant.engine} computes logits that differ from ONNX Runtime's by {difference:.3g}",
            "its speed is not the speed of this model; export with the profile made for this engine",
        )


def _take_turns(contestants: Sequence[Contestant], settings: Settings, number: int, watch: Watch) -> Settings:
    """The timed rounds of process ``number``."""
    estimates_ms: dict[str, float] = {}
    for key, contestant in enumerate(contestants):
        contestant.attempt(lambda one, key=str(key): estimates_ms.update({key: one.estimate_ms()}))
    left = {str(key): one for key, one in enumerate(contestants) if not one.error}
    if settings.scenario == "server" and settings.rate is None and left:
        settings = replace(settings, rate=scenario.LOAD * 1000 / max(estimates_ms[key] for key in left))
    seed = (settings.seed, number)
    runs = {key: scenario.runner(settings.scenario, one.streams, settings.rate, seed) for key, one in left.items()}
    watch.report(f"timing {len(left)} in turns")
    plan = _plan({key: estimates_ms[key] for key in left}, settings, number)
    order_seed = settings.seed + number
    measured = measure.interleave(runs, plan, seed=order_seed, on_round=watch.on_round)
    for key, one in left.items():
        one.blocks.append(measured.blocks[key])
        one.error = measured.failures.get(key)
    return settings


def _plan(estimates_ms: dict[str, float], settings: Settings, number: int) -> dict[str, list[int]]:
    """Runs of each contestant in each round of process ``number``, its share of all."""
    if not estimates_ms:
        return {}
    if settings.iterations:
        before, after = (settings.iterations * done // settings.processes for done in (number, number + 1))
        return measure.plan_iterations(list(estimates_ms), after - before)
    duration_s = settings.duration_s / settings.processes
    min_rounds = max(2, -(-measure.MIN_ROUNDS // settings.processes))
    if settings.rate and settings.scenario == "server":
        arrivals_ms = dict.fromkeys(estimates_ms, 1000 / settings.rate)
        block_ms = scenario.SERVER_BLOCK_MS
        return measure.plan_duration(arrivals_ms, duration_s, min_rounds=min_rounds, block_ms=block_ms)
    return measure.plan_duration(estimates_ms, duration_s, min_rounds=min_rounds)


def _collect_evidence(contestants: Sequence[Contestant], subject: Subject, watch: Watch) -> None:
    pruned = evidence.pruned_names([graph.load(variant.path) for variant in subject.variants])
    for one in contestants:
        if not one.error:
            watch.report(f"{one.name}: profiling")
            one.evidence = evidence.collect(one.streams[0], pruned)


def _row(contestant: Contestant, contestants: Sequence[Contestant], subject: Subject, settings: Settings) -> Row:
    variant, loaded, error = contestant.variant, contestant.loaded, contestant.error
    row = Row(
        model=subject.name,
        engine=contestant.engine,
        weights=variant.weights,
        sparsity=variant.sparsity,
        batch_size=subject.batch_size,
        threads=settings.threads,
        error=error.message if error else None,
        hint=error.hint if error else "",
        load_s=median(one.load_s for one in loaded) if loaded else None,
        compile_s=median(one.compile_s for one in loaded) if loaded else None,
        first_ms=median(one.first_ms for one in loaded) if loaded else None,
        file_mib=contestant.file.stat().st_size / 2**20 if loaded else None,
        about=loaded[0].about if loaded else {},
        agreement=contestant.agreement,
        accuracy=top1.conclude(contestant, contestants, subject, BASELINE),
        scenario=settings.scenario,
        processes=settings.processes,
        streams=settings.streams,
        rate=settings.rate,
        evidence=contestant.evidence,
        blocks_ms=_units([[block.latencies_ms for block in process] for process in contestant.blocks]),
        blocks_s=_units([[block.seconds for block in process] for process in contestant.blocks]),
    )
    return row if error else _with_times(row, contestant, contestants, subject, settings)


def _with_times(
    row: Row, contestant: Contestant, contestants: Sequence[Contestant], subject: Subject, settings: Settings
) -> Row:
    blocks = list(chain.from_iterable(contestant.blocks))
    clocks = [block.mhz for block in blocks if block.mhz]

    def speed_up(variant: Variant | None, engine: str) -> verdict.SpeedUp | None:
        found = [one for one in contestants if (one.variant, one.engine) == (variant, engine) and not one.error]
        if not found or found[0] is contestant:
            return None
        ours, other = (figures_ms(one, settings) for one in (contestant, found[0]))
        return verdict.over_processes(other, ours, settings.seed)

    dense = None if contestant.variant.is_float_dense else subject.dense
    seconds = None if settings.scenario == "single_stream" else sum(block.seconds for block in blocks)
    return replace(
        row,
        peak_mib=contestant.peak_mib,
        latency=statistics.summarize([block.latencies_ms for block in blocks], subject.batch_size, seconds),
        waited=_waited(blocks),
        clock_mhz=(min(clocks), max(clocks)) if clocks else (),
        vs_dense=speed_up(dense, contestant.engine),
        vs_onnxruntime=speed_up(dense, BASELINE),
        vs_float=speed_up(subject.float_dense, BASELINE),
    )


def figures_ms(contestant: Contestant, settings: Settings) -> list[list[list[float]]]:
    """What is compared, by process, round and run."""
    return [[scenario.figures_ms(settings.scenario, block) for block in process] for process in contestant.blocks]


def _waited(blocks: Sequence[Block]) -> float | None:
    """The part of the timed runs that a thread was ready and had no core; its counter is read a moment outside them."""
    told = [block for block in blocks if block.waited_s is not None]
    seconds = sum(block.seconds for block in told)
    return min(1.0, sum(block.waited_s or 0.0 for block in told) / seconds) if seconds else None


def _units(processes: list[list[T]]) -> list[T] | list[list[T]]:
    """Rounds of the one process there is, or by process."""
    return processes[0] if len(processes) == 1 else processes
