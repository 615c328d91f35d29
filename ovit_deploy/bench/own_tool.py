"""Our medians against those of each engine's own benchmark tool, on the same file, in turns.

    onnxruntime   onnxruntime_test of its wheel, which tells the mean (its C++ onnxruntime_perf_test is in no wheel)
    openvino      benchmark_app
    deepsparse    deepsparse.benchmark

Every round starts the tool afresh and runs a block of ours next to it, in an order drawn anew; what is compared are
medians of what each told. The tools make up their own random images; times do not depend on these.
"""

import json
import os
import random
import re
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

from ovit_deploy.bench.contestant import Contestant
from ovit_deploy.bench.settings import Settings, Watch
from ovit_deploy.bench.subject import Subject
from ovit_deploy.engines import environments
from ovit_deploy.engines.environments import Environment
from ovit_deploy.engines.selection import Value
from ovit_deploy.errors import EngineError, ModelError

ROUNDS = 5


@dataclass(frozen=True)
class Run:
    """What a tool is asked for: this file, so long, and where it may write."""

    model: Path
    shape: tuple[int, ...]
    threads: int
    seconds: float
    count: int
    options: dict[str, Value]
    report: Path


@dataclass(frozen=True)
class Tool:
    """A benchmark tool: its name, the arguments to its Python, and how its figure (ms) is read.

    ``mean``: it tells the mean, so ours is taken as the mean of a block too.
    """

    name: str
    arguments: Callable[[Run], list[str]]
    read: Callable[[str, Path], float]
    mean: bool = False


@dataclass(frozen=True)
class Comparison:
    """One engine against its own tool: medians over rounds in ms, our figure over its, and that of every round."""

    engine: str
    tool: str
    tool_ms: float = 0.0
    our_ms: float = 0.0
    ratio: float = 0.0
    ratios: list[float] = field(default_factory=list)
    error: str = ""


def compare_all(
    subject: Subject, settings: Settings, watch: Watch, *, folder: Path, rounds: int = ROUNDS
) -> list[Comparison]:
    """Every engine of ``settings`` on the first variant of ``subject``; one that fails harms no other."""
    found = []
    for engine in settings.engines:
        one = Contestant(engine, subject.variants[0])
        tool = TOOLS.get(one.selection.engine)
        try:
            if tool is None:
                raise EngineError(f"{engine} has no tool of its own that reads this file")
            found.append(compare(one, tool, subject, settings, watch, folder=folder, rounds=rounds))
        except (EngineError, ModelError) as error:
            found.append(Comparison(engine, tool.name if tool else "-", error=error.message))
    return found


def compare(
    one: Contestant, tool: Tool, subject: Subject, settings: Settings, watch: Watch, *, folder: Path, rounds: int
) -> Comparison:
    """One engine and its tool, in turns.

    Raises:
        EngineError: either failed.
    """
    environment = environments.prepare(one.selection.engine, watch.report)
    draw, ours, theirs = random.Random(settings.seed), [], []
    with ExitStack() as stack:
        one.start(subject, settings, stack, watch)
        estimate_ms = one.estimate_ms()
        seconds = settings.duration_s / rounds
        count = max(5, round(1000 * seconds / estimate_ms))
        shape = (subject.batch_size, *_image_shape(subject))
        run = Run(one.file, shape, settings.threads, seconds, count, one.selection.options, folder / "tool.json")

        def measure_ours() -> None:
            ours.append((mean if tool.mean else median)(one.streams[0].run(count)))

        def measure_theirs() -> None:
            theirs.append(tool.read(_output(tool, run, environment, settings), run.report))

        for number in range(rounds):
            for step in draw.sample([measure_ours, measure_theirs], 2):
                step()
            watch.on_round(number + 1, rounds)
    ratios = [mine / its for mine, its in zip(ours, theirs, strict=True)]
    return Comparison(one.engine, tool.name, median(theirs), median(ours), median(ours) / median(theirs), ratios)


def _output(tool: Tool, run: Run, environment: Environment, settings: Settings) -> str:
    """What the tool printed, on the cores that our process has."""

    def bind() -> None:
        if settings.cores:
            os.sched_setaffinity(0, settings.cores[: run.threads])

    threads = {"OMP_NUM_THREADS": str(run.threads)}
    try:
        done = subprocess.run(
            [*environment.command, *tool.arguments(run)],
            capture_output=True,
            text=True,
            timeout=settings.timeout_s,
            env={**os.environ, **environment.variables, **threads},
            cwd=run.report.parent,
            preexec_fn=bind,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"{tool.name} did not end within {settings.timeout_s:g} s", "--timeout") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise EngineError(f"{tool.name} failed: {last}")
    return done.stdout


def _image_shape(subject: Subject) -> tuple[int, ...]:
    import numpy as np

    return np.load(subject.images, mmap_mode="r").shape[1:]


def _onnxruntime(run: Run) -> list[str]:
    return ["-c", ORT_ENTRY, str(run.threads), str(run.model), str(run.count)]


def _openvino(run: Run) -> list[str]:
    streams = ["-hint", "none", "-api", "sync", "-nstreams", "1", "-nthreads", str(run.threads)]
    report = ["-report_type", "no_counters", "-json_stats", "-report_folder", str(run.report.parent)]
    shape = f"[{','.join(map(str, run.shape))}]"
    precision = ["-infer_precision", str(run.options["precision"]), "-shape", shape]
    entry = "from openvino.tools.benchmark.main import main; main()"
    return ["-c", entry, "-m", str(run.model), "-t", str(max(1, round(run.seconds))), *streams, *precision, *report]


def _deepsparse(run: Run) -> list[str]:
    size = ["-b", str(run.shape[0]), "-ncores", str(run.threads), "-s", "sync"]
    how = ["-t", str(max(1, round(run.seconds))), "-w", "1", "-q", "-x", str(run.report)]
    return ["-m", "deepsparse.benchmark.benchmark_model", str(run.model), *size, *how]


# Its tool takes no number of threads, so the one of ours is set where the tool makes its options.
ORT_ENTRY = """
import sys
import onnxruntime
threads, make = int(sys.argv.pop(1)), onnxruntime.InferenceSession
def session(path, sess_options=None, **more):
    sess_options = sess_options or onnxruntime.SessionOptions()
    sess_options.intra_op_num_threads = threads
    return make(path, sess_options, **more)
onnxruntime.InferenceSession = session
from onnxruntime.tools.onnxruntime_test import main
main()
"""


def _read_onnxruntime(printed: str, _: Path) -> float:
    found = re.search(r"avg latency: ([0-9.e+-]+) ms", printed)
    assert found
    return float(found[1])


def _read_openvino(printed: str, report: Path) -> float:
    told = json.loads(report.with_name("benchmark_report.json").read_text())
    return float(told["execution_results"]["latency (ms)"])


def _read_deepsparse(printed: str, report: Path) -> float:
    return float(json.loads(report.read_text())["benchmark_result"]["median"])


TOOLS = {
    "onnxruntime": Tool("onnxruntime_test", _onnxruntime, _read_onnxruntime, mean=True),
    "openvino": Tool("benchmark_app", _openvino, _read_openvino),
    "deepsparse": Tool("deepsparse.benchmark", _deepsparse, _read_deepsparse),
}
