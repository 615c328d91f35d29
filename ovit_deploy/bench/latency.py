"""Every engine with every variant of a model, each in a process of its own, timed in alternation."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np

from ovit_deploy.bench import agreement, graph, measure, statistics, verdict
from ovit_deploy.bench.agreement import Agreement
from ovit_deploy.bench.results import Row
from ovit_deploy.bench.subject import Subject, Variant
from ovit_deploy.engines import environments
from ovit_deploy.engines.process import EngineProcess, Loaded
from ovit_deploy.engines.selection import Selection
from ovit_deploy.errors import EngineError, ModelError

BASELINE = "onnxruntime"
ESTIMATE_RUNS = 3


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        engines: names, with options where there are any, in the order of the rows.
        threads: of each engine.
        duration_s: timed seconds a contestant; not used when ``iterations`` is set.
        iterations: timed runs a contestant.
        seed: of the order of blocks and of the bootstrap.
        timeout_s: how long one step of an engine may take.
    """

    engines: tuple[str, ...]
    threads: int = 1
    duration_s: float = 10.0
    iterations: int | None = None
    seed: int = 0
    timeout_s: float = 600.0


@dataclass(frozen=True)
class Watch:
    """Who is told what happens: a line of text, and rounds done of all rounds."""

    report: Callable[[str], None] = lambda text: None
    on_round: Callable[[int, int], None] = lambda done, total: None


@dataclass
class Contestant:
    """One variant on one engine, and what is known of it so far."""

    engine: str
    variant: Variant
    process: EngineProcess | None = None
    loaded: Loaded | None = None
    agreement: Agreement | None = None
    blocks_ms: list[list[float]] = field(default_factory=list)
    error: EngineError | None = None

    @property
    def selection(self) -> Selection:
        """The engine and its options."""
        return Selection.parse(self.engine)

    @property
    def file(self) -> Path:
        """What the engine loads.

        Raises:
            EngineError: it reads checkpoints, and there is none.
        """
        if self.selection.traits.reads == "onnx":
            return self.variant.path
        if self.variant.checkpoint is None:
            without = f"{self.engine} runs checkpoints, and this ONNX file has none beside it"
            raise EngineError(without, "bench a run, or a timm model")
        return self.variant.checkpoint

    @property
    def name(self) -> str:
        """Engine and variant, for messages."""
        return f"{self.engine}, {self.variant.weights}"


def measure_latency(subject: Subject, settings: Settings, watch: Watch | None = None) -> list[Row]:
    """A row for every variant on every engine; one that fails carries its reason and harms no other.

    Args:
        subject: from ``subject.prepare``.
        settings: engines, threads, how long.
        watch: is told of the progress.
    """
    watch = watch or Watch()
    contestants = [Contestant(name, variant) for name in settings.engines for variant in subject.variants]
    with ExitStack() as stack:
        for contestant in contestants:
            _attempt(contestant, lambda one: _start(one, subject, settings, stack, watch))
        _compare_logits(contestants, subject, settings, watch)
        _take_turns(contestants, settings, watch)
    return [_row(contestant, contestants, subject, settings) for contestant in contestants]


def _attempt(contestant: Contestant, step: Callable[[Contestant], None]) -> None:
    """Do a step with a contestant that is still in; a failure puts it out and ends its process."""
    if contestant.error:
        return
    try:
        step(contestant)
    except EngineError as error:
        contestant.error = error
    except ModelError as error:  # its file was damaged after it was written
        contestant.error = EngineError(error.message, error.hint)
    if contestant.error and contestant.process:
        contestant.process.close()


def _start(contestant: Contestant, subject: Subject, settings: Settings, stack: ExitStack, watch: Watch) -> None:
    """Bring a contestant to life; its process ends with ``stack``."""
    selection, file = contestant.selection, contestant.file
    if selection.traits.reads == "onnx" and (
        refused := graph.refusal(graph.load(file), selection.engine, selection.traits)
    ):
        raise refused
    environment = environments.prepare(selection.engine, watch.report)
    watch.report(f"{contestant.name}: loading")
    process = EngineProcess(contestant.engine, environment, timeout_s=settings.timeout_s)
    contestant.process = stack.enter_context(process)
    contestant.loaded = process.load(file, subject.images, batch_size=subject.batch_size, threads=settings.threads)


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
            _attempt(rival, lambda one, logits=expected: _require_agreement(one, subject, logits))


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
    assert contestant.process
    contestant.agreement = agreement.compare(_logits(contestant.process, subject), expected)
    difference = contestant.agreement.max_abs_difference
    if not difference <= agreement.allowed(expected, rounds=contestant.selection.rounds):
        raise EngineError(
            f"{contestant.engine} computes logits that differ from ONNX Runtime's by {difference:.3g}",
            "its speed is not the speed of this model; export with the profile made for this engine",
        )


def _take_turns(contestants: Sequence[Contestant], settings: Settings, watch: Watch) -> None:
    estimates_ms: dict[str, float] = {}
    for number, contestant in enumerate(contestants):
        _attempt(contestant, lambda one, key=str(number): estimates_ms.update({key: _estimate_ms(one)}))
    left = {str(number): one for number, one in enumerate(contestants) if not one.error}
    if settings.iterations:
        plan = measure.plan_iterations(list(left), settings.iterations)
    else:
        plan = measure.plan_duration(estimates_ms, settings.duration_s) if left else {}
    watch.report(f"timing {len(left)} in turns")
    runs: Mapping[str, measure.Run] = {name: one.process.run for name, one in left.items() if one.process}
    measured = measure.interleave(runs, plan, seed=settings.seed, on_round=watch.on_round)
    for name, one in left.items():
        one.blocks_ms, one.error = measured.blocks_ms[name], measured.failures.get(name)


def _estimate_ms(contestant: Contestant) -> float:
    """A first idea of one run, and the engine's warm-up."""
    assert contestant.process
    return median(contestant.process.run(ESTIMATE_RUNS))


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
        load_s=loaded.load_s if loaded else None,
        compile_s=loaded.compile_s if loaded else None,
        first_ms=loaded.first_ms if loaded else None,
        file_mib=contestant.file.stat().st_size / 2**20 if loaded else None,
        about=loaded.about if loaded else {},
        agreement=contestant.agreement,
        blocks_ms=contestant.blocks_ms,
    )
    return row if error else _with_times(row, contestant, contestants, subject, settings)


def _with_times(
    row: Row, contestant: Contestant, contestants: Sequence[Contestant], subject: Subject, settings: Settings
) -> Row:
    assert contestant.process
    alive = [one for one in contestants if not one.error]
    dense = {one.engine: one.blocks_ms for one in alive if one.variant is subject.dense}

    def speed_up(engine: str) -> verdict.SpeedUp | None:
        own = contestant.variant is subject.dense and engine == contestant.engine
        if own or engine not in dense:
            return None
        return verdict.speed_up(dense[engine], contestant.blocks_ms, settings.seed)

    return replace(
        row,
        peak_mib=contestant.process.peak_mib,
        latency=statistics.summarize(contestant.blocks_ms, subject.batch_size),
        vs_dense=speed_up(contestant.engine),
        vs_onnxruntime=speed_up(BASELINE),
    )
