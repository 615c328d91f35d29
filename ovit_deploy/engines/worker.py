"""The child process: one engine and one model, driven by JSON lines on stdin and stdout.

    {"do": "load", "engine": ..., "model": ..., "images": x.npy, "batch_size": 1, "threads": 1, "options": {},
     "cores": [1]}
        -> {"load_s": ..., "compile_s": ..., "first_ms": ..., "about": {...}, "peak_mib": ...}
    {"do": "run", "count": 5, "extra": 0.0}           -> {"latencies_ms": [...], "began_s": ..., "ended_s": ...,
                                                          "waited_s": ..., "mhz": ..., "peak_mib": ...}
    {"do": "serve", "arrivals_s": [...], "extra": 0.0} -> the same
    {"do": "profile", "count": 5}                     -> {"layers": [...], "peak_mib": ...}
    {"do": "infer", "images": x.npy, "logits": y.npy} -> {"peak_mib": ...}
    {"do": "quit"}                                    -> the process ends

A failure is answered as {"error": ..., "hint": ...}. The answers go to a private copy of stdout; descriptor 1
itself is pointed at stderr, so that native libraries that print cannot corrupt them.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from ovit_deploy import engines
from ovit_deploy.errors import OvitError

SETTLE_S = 0.05  # idle threads of the engine that ran before us spin for some 20 ms


def pin(cores: list[int]) -> None:
    """Bind all threads of this process to ``cores``: numpy's import has made some already."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


class Session:
    """The loaded engine and the batch it is timed on."""

    def load(
        self,
        *,
        engine: str,
        model: str,
        images: str,
        batch_size: int,
        threads: int,
        options: dict[str, Any],
        cores: list[int] | None = None,
    ) -> dict[str, Any]:
        """Cold start on ``cores``, or wherever the system puts us: import the runtime, build the model, answer once."""
        if cores:
            pin(cores)  # before the runtime makes threads, which inherit it
        self.images = np.load(images)[:batch_size]
        self.setup = {"path": model, "images": self.images, "threads": threads, "options": options}
        self.engine = engines.create(engine)
        start = time.perf_counter_ns()
        self.engine.start()
        imported = time.perf_counter_ns()
        self.engine.load(**self.setup)
        loaded = time.perf_counter_ns()
        self.engine.run(self.images)
        first = time.perf_counter_ns()
        return {
            "load_s": (loaded - start) / 1e9,
            "compile_s": (loaded - imported) / 1e9,
            "first_ms": (first - loaded) / 1e6,
            "about": self.engine.describe(),
        }

    def run(self, *, count: int, extra: float = 0.0) -> dict[str, Any]:
        """Time ``count`` runs; ``extra`` work, a fraction of each run's time, makes a slower engine on purpose."""
        return self._timed(lambda: [self._run_once_ms(extra) for _ in range(count)])

    def serve(self, *, arrivals_s: list[float], extra: float = 0.0) -> dict[str, Any]:
        """Answer queries that arrive at these times, one after the other; a latency counts from the arrival."""

        def answer_all() -> list[float]:
            start = time.perf_counter()
            return [self._answer_ms(start + arrival, extra) for arrival in arrivals_s]

        return self._timed(answer_all)

    def profile(self, *, count: int) -> dict[str, Any]:
        """What each layer takes, over ``count`` runs of a model built once more with the runtime's profiler on."""
        return {"layers": self.engine.profile(count=count, **self.setup)}

    def _timed(self, work: Callable[[], list[float]]) -> dict[str, Any]:
        """Latencies from ``work``, after a pause and one run that is not counted; when, and how undisturbed."""
        time.sleep(SETTLE_S)
        self.engine.run(self.images)
        waited, began = waited_s(), time.perf_counter()
        latencies_ms = work()
        ended = time.perf_counter()
        meanwhile = max((total - waited.get(thread, 0.0) for thread, total in waited_s().items()), default=None)
        times = {"began_s": began, "ended_s": ended, "waited_s": meanwhile, "mhz": core_mhz()}
        return {"latencies_ms": latencies_ms, **times}

    def _run_once_ms(self, extra: float) -> float:
        start = time.perf_counter_ns()
        self.engine.run(self.images)
        taken = time.perf_counter_ns() - start
        while extra and time.perf_counter_ns() - start < (1 + extra) * taken:
            pass
        return (time.perf_counter_ns() - start) / 1e6

    def _answer_ms(self, arrival_s: float, extra: float) -> float:
        time.sleep(max(0.0, arrival_s - time.perf_counter()))
        self._run_once_ms(extra)
        return 1000 * (time.perf_counter() - arrival_s)

    def infer(self, *, images: str, logits: str) -> dict[str, Any]:
        """Write the logits of all ``images``, a multiple of the batch size, batch by batch."""
        samples, size = np.load(images), len(self.images)
        batches = [self.engine.run(samples[start : start + size]) for start in range(0, len(samples), size)]
        np.save(logits, np.concatenate(batches))
        return {}


def peak_mib() -> float:
    """Peak resident memory of this process so far.

    The kernel's getrusage figure starts at the parent's peak, because exec hands it on; VmHWM does not.
    """
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def waited_s() -> dict[str, float]:
    """Seconds that each of our threads was ready and had no core so far; empty where the kernel does not tell."""
    waited = {}
    for task in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            waited[task.parent.name] = int(task.read_text().split()[1]) / 1e9
    return waited


def core_mhz() -> Any:
    """Clock of the first core that we may run on, as the kernel sees it now; None where it does not tell."""
    try:
        core = min(os.sched_getaffinity(0))
        return int(Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq").read_text()) / 1000
    except (OSError, AttributeError):
        return None


def answer(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    """Do what a request asks; an exception of the engine becomes an answer too."""
    do = request.pop("do")
    try:
        return {**getattr(session, do)(**request), "peak_mib": peak_mib()}
    except OvitError as error:
        return {"error": error.message, "hint": error.hint}
    except Exception as error:
        traceback.print_exc()
        return {"error": " ".join(f"{type(error).__name__}: {error}".split()), "hint": ""}


def take_stdout() -> IO[str]:
    """A private stream on the real stdout; whoever else prints there prints to stderr from now on."""
    private = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return private


def main() -> None:
    """Answer requests until quit or the parent is gone."""
    answers, session = take_stdout(), Session()
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "quit":
            break
        answers.write(json.dumps(answer(session, request)) + "\n")
        answers.flush()
    os._exit(0)  # native thread pools may hang in their destructors
