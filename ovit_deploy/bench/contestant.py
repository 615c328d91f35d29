"""One variant of a model on one engine: its processes, and what is known of it so far."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from ovit_deploy.bench import graph, scenario
from ovit_deploy.bench.agreement import Agreement
from ovit_deploy.bench.evidence import Evidence
from ovit_deploy.bench.settings import Settings, Watch
from ovit_deploy.bench.subject import Subject, Variant
from ovit_deploy.engines import environments
from ovit_deploy.engines.process import Block, EngineProcess, Loaded
from ovit_deploy.engines.selection import Selection
from ovit_deploy.errors import EngineError, ModelError

ESTIMATE_RUNS = 3


@dataclass
class Contestant:
    """One variant on one engine.

    Args:
        engine: its name, with options where there are any.
        variant: what it runs.
        extra: work added to every run, as a fraction of its time.
        streams: its live processes; more than one where several run at the same time.
        loaded: the cold start of every process so far.
        blocks: what was timed, by process (or set of streams) and round.
        peak_mib: most memory of a set of streams so far.
        told_right: whether it told each test image right, in parts.
        error: why it is out.
    """

    engine: str
    variant: Variant
    extra: float = 0.0
    streams: list[EngineProcess] = field(default_factory=list)
    loaded: list[Loaded] = field(default_factory=list)
    agreement: Agreement | None = None
    evidence: Evidence | None = None
    blocks: list[list[Block]] = field(default_factory=list)
    peak_mib: float | None = None
    told_right: list[np.ndarray] = field(default_factory=list)
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
            return self.variant.forms.get(self.selection.engine, self.variant.path)
        if self.variant.checkpoint is None:
            without = f"{self.engine} runs checkpoints, and this ONNX file has none beside it"
            raise EngineError(without, "bench a run, or a timm model")
        return self.variant.checkpoint

    @property
    def name(self) -> str:
        """Engine and variant, for messages."""
        return f"{self.engine}, {self.variant.weights}"

    def attempt(self, step: Callable[["Contestant"], None]) -> None:
        """Do a step if still in; a failure puts the contestant out and ends its processes."""
        if self.error:
            return
        try:
            step(self)
        except EngineError as error:
            self.error = error
        except ModelError as error:  # its file was damaged after it was written
            self.error = EngineError(error.message, error.hint)
        if self.error:
            for stream in self.streams:
                stream.close()

    def start(self, subject: Subject, settings: Settings, stack: ExitStack, watch: Watch) -> None:
        """Bring it to life in fresh processes, which end with ``stack``."""
        selection, file = self.selection, self.file
        if selection.traits.reads == "onnx" and (
            refused := graph.refusal(graph.load(file), selection.engine, selection.traits)
        ):
            raise refused
        environment = environments.prepare(selection.engine, watch.report)
        watch.report(f"{self.name}: loading")
        self.streams = []
        for number in range(settings.streams):
            cores = settings.cores[number * settings.threads : (number + 1) * settings.threads]
            stream = EngineProcess(
                self.engine, environment, timeout_s=settings.timeout_s, cores=cores, extra=self.extra
            )
            self.streams.append(stack.enter_context(stream))
            loaded = stream.load(file, subject.images, batch_size=subject.batch_size, threads=settings.threads)
            self.loaded.append(loaded)

    def estimate_ms(self) -> float:
        """A first idea of one run (of all streams at once), and the engine's warm-up."""
        block = scenario.run_together(self.streams, ESTIMATE_RUNS)
        return median(block.latencies_ms)

    def note_memory(self) -> None:
        """Remember the most memory that the processes alive now have used."""
        self.peak_mib = max(self.peak_mib or 0.0, sum(stream.peak_mib for stream in self.streams))
