"""The handle of an engine in its own process: whatever goes wrong there becomes an EngineError here."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ovit_deploy.engines.environments import Environment
from ovit_deploy.engines.selection import Selection
from ovit_deploy.errors import EngineError

PACKAGE = Path(__file__).parents[1]
# The package is made known by its folder alone: putting its parent on the path would show a foreign
# environment all that is installed beside it, numpy 2 among others.
BOOTSTRAP = """
import sys, types
sys.path[:] = [entry for entry in sys.path if entry]
package = types.ModuleType("ovit_deploy")
package.__path__ = [sys.argv[1]]
sys.modules["ovit_deploy"] = package
from ovit_deploy.engines.worker import main
main()
"""
LAST_WORDS = 3
DEATHS = {
    "SIGKILL": "killed from outside, most often because memory ran out: try a smaller --batch-size",
    "SIGILL": "the CPU lacks an instruction that this engine needs",
}


@dataclass(frozen=True)
class Loaded:
    """A cold start: import of the runtime and build of the model, the build alone, the first inference, what ran."""

    load_s: float
    compile_s: float
    first_ms: float
    about: dict[str, Any]


@dataclass(frozen=True)
class Block:
    """Runs that were timed one after the other.

    Args:
        latencies_ms: one a run; where queries arrive, from the arrival.
        began_s: when the first run began, on the clock that all processes of the machine share.
        ended_s: when the last one ended.
        waited_s: how long the thread that waited most was ready and had no core; None where the kernel does not tell.
        mhz: clock of its core at the end; None likewise.
    """

    latencies_ms: list[float]
    began_s: float
    ended_s: float
    waited_s: float | None = None
    mhz: float | None = None

    @property
    def seconds(self) -> float:
        """From the beginning of the first run to the end of the last."""
        return self.ended_s - self.began_s


def start(environment: Environment, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    """A child that waits for requests. Ctrl-C reaches the parent only, which then ends its children."""
    return subprocess.Popen(
        [*environment.command, "-c", BOOTSTRAP, str(PACKAGE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, **environment.variables},
        start_new_session=True,
    )


class EngineProcess:
    """One engine with one model, in a child process that dies with this handle.

    Every method raises EngineError when the child refuses, crashes, or does not answer in time; after a crash
    or a timeout the child is gone.

    Args:
        engine: the engine, with its options where there are any: ``openvino:precision=bf16``.
        environment: which Python runs it.
        timeout_s: how long one step may take.
        cores: that the child may run on; wherever the system puts it by default.
        extra: work added to every run, as a fraction of its time: an engine that is slower on purpose.
    """

    def __init__(
        self,
        engine: str,
        environment: Environment,
        *,
        timeout_s: float = 600.0,
        cores: Sequence[int] = (),
        extra: float = 0.0,
    ) -> None:
        self.engine, self.selection = engine, Selection.parse(engine)
        self.cores, self.extra = list(cores), extra
        self.timeout_s, self.peak_mib = timeout_s, 0.0
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        self._unread = b""
        try:
            self._child = start(environment, self._stderr)
        except OSError as error:
            self._stderr.close()
            raise EngineError(f"{engine} cannot be started: {error.strerror}: {environment.command[0]}") from None

    def __enter__(self) -> EngineProcess:
        """The handle itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    def load(self, model: Path, images: Path, *, batch_size: int, threads: int) -> Loaded:
        """Build ``model`` (ONNX, or what the engine reads) and run it once on the first batch of ``images`` (npy)."""
        what = {"engine": self.selection.engine, "options": self.selection.options, "threads": threads}
        paths = {"model": str(model), "images": str(images)}
        request = {"do": "load", **what, **paths, "batch_size": batch_size, "cores": self.cores}
        answer = self._call(request, f"loading {model.name}")
        return Loaded(answer["load_s"], answer["compile_s"], answer["first_ms"], answer["about"])

    def run(self, count: int) -> list[float]:
        """Latencies in ms of ``count`` runs."""
        return self.time(count).latencies_ms

    def time(self, count: int) -> Block:
        """``count`` runs, one right after the other."""
        return self._block({"do": "run", "count": count}, f"running {count} times")

    def serve(self, arrivals_s: Sequence[float]) -> Block:
        """A run for every query that arrives, at these seconds after the start."""
        return self._block({"do": "serve", "arrivals_s": list(arrivals_s)}, f"serving {len(arrivals_s)} queries")

    def profile(self, count: int) -> list[dict[str, Any]]:
        """The layers of the loaded model as the runtime's profiler tells them; see ``base.Engine.profile``."""
        return self._call({"do": "profile", "count": count}, "profiling")["layers"]

    def infer(self, images: Path, logits: Path) -> None:
        """Write the logits of all ``images`` (npy) to ``logits`` (npy)."""
        self._call({"do": "infer", "images": str(images), "logits": str(logits)}, "computing logits")

    def close(self) -> None:
        """End the child, whatever it is doing. Nothing happens if it has ended."""
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout, self._stderr):
            with contextlib.suppress(BrokenPipeError):  # a request that the dead child never read
                stream.close()  # type: ignore[union-attr]

    def _block(self, request: dict[str, Any], doing: str) -> Block:
        answer = self._call({**request, "extra": self.extra}, doing)
        return Block(**{name: answer[name] for name in ("latencies_ms", "began_s", "ended_s", "waited_s", "mhz")})

    def _call(self, request: dict[str, Any], doing: str) -> dict[str, Any]:
        assert self._child.stdin
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._death(doing) from None
        answer = json.loads(self._read_line(doing))
        if "error" in answer:
            raise EngineError(f"{self.engine} failed {doing}: {answer['error']}", answer["hint"])
        self.peak_mib = answer["peak_mib"]
        return answer

    def _read_line(self, doing: str) -> bytes:
        assert self._child.stdout
        deadline = time.monotonic() + self.timeout_s
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._child.stdout], [], [], left)[0]:
                self._child.kill()
                late = f"{self.engine} gave no answer within {self.timeout_s:g} s {doing}"
                raise EngineError(late, "--timeout gives it longer")
            read = os.read(self._child.stdout.fileno(), 65536)
            if not read:
                raise self._death(doing)
            self._unread += read
        line, self._unread = self._unread.split(b"\n", 1)
        return line

    def _death(self, doing: str) -> EngineError:
        code = self._child.wait()
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        last_words = f": {words}" if (words := self._last_words()) else ""
        return EngineError(f"{self.engine} died ({name}) {doing}{last_words}", DEATHS.get(name, ""))

    def _last_words(self) -> str:
        """The assertion that failed, which stands before pages of a native trace; else the last lines."""
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]
        failed = [line for line in lines if line.startswith("Assertion at ")]
        return " | ".join(failed[-1:] or lines[-LAST_WORDS:])
