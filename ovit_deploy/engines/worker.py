"""The child process: one engine and one model, driven by JSON lines on stdin and stdout.

    {"do": "load", "engine": ..., "model": ..., "images": x.npy, "batch_size": 1, "threads": 1, "options": {}}
        -> {"load_s": ..., "compile_s": ..., "first_ms": ..., "about": {...}, "peak_mib": ...}
    {"do": "run", "count": 5}                         -> {"latencies_ms": [...], "peak_mib": ...}
    {"do": "infer", "images": x.npy, "logits": y.npy} -> {"peak_mib": ...}
    {"do": "quit"}                                    -> the process ends

A failure is answered as {"error": ..., "hint": ...}. The answers go to a private copy of stdout; descriptor 1
itself is pointed at stderr, so that native libraries that print cannot corrupt them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from typing import IO, Any

import numpy as np

from ovit_deploy import engines
from ovit_deploy.errors import OvitError

SETTLE_S = 0.05  # idle threads of the engine that ran before us spin for some 20 ms


class Session:
    """The loaded engine and the batch it is timed on."""

    def load(
        self, *, engine: str, model: str, images: str, batch_size: int, threads: int, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Cold start: import the runtime, build the model, answer once."""
        self.images = np.load(images)[:batch_size]
        self.engine = engines.create(engine)
        start = time.perf_counter_ns()
        self.engine.start()
        imported = time.perf_counter_ns()
        self.engine.load(model, images=self.images, threads=threads, options=options)
        loaded = time.perf_counter_ns()
        self.engine.run(self.images)
        first = time.perf_counter_ns()
        return {
            "load_s": (loaded - start) / 1e9,
            "compile_s": (loaded - imported) / 1e9,
            "first_ms": (first - loaded) / 1e6,
            "about": self.engine.describe(),
        }

    def run(self, *, count: int) -> dict[str, list[float]]:
        """Time ``count`` runs, after a pause and one run that is not counted."""
        time.sleep(SETTLE_S)
        self.engine.run(self.images)
        return {"latencies_ms": [self._run_once_ms() for _ in range(count)]}

    def _run_once_ms(self) -> float:
        start = time.perf_counter_ns()
        self.engine.run(self.images)
        return (time.perf_counter_ns() - start) / 1e6

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
