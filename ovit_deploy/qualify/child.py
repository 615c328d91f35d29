"""A model in a process of its own: neither a crash nor a model without end costs more than its row.

The child reads its task as JSON from stdin and leaves its row as a JSON file.
"""

import json
import logging
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import psutil

from ovit_deploy.qualify.task import Row, Settings

INTERVAL_S = 1.0  # a look at all processes takes milliseconds


@dataclass(frozen=True)
class Limits:
    """What one model may take, with all its processes."""

    seconds: float
    memory_bytes: int


@dataclass
class Usage:
    """Most resident memory of the child and its children so far."""

    peak_bytes: int = 0


def qualify(model: str, settings: Settings, limits: Limits) -> Row:
    """The row of a model, from a process of its own; where that did not end well, the row says why."""
    with TemporaryDirectory(prefix="ovit-qualify-") as folder, TemporaryFile() as stderr:
        task = {"model": model, "settings": settings.as_dict(), "folder": folder}
        started, usage = time.monotonic(), Usage()
        child = subprocess.Popen(
            [sys.executable, "-m", "ovit_deploy.qualify.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd=folder,
        )
        try:
            assert child.stdin
            child.stdin.write(json.dumps(task).encode())
            child.stdin.close()
            reason = _watch(child, limits, usage)
        finally:
            _end(child)
        found = Path(folder) / "row.json"
        row = Row.from_dict(json.loads(found.read_text())) if found.is_file() else Row(model)
        if reason or not found.is_file():
            stderr.seek(0)
            row.failures["process"] = reason or _death(child.returncode, stderr.read().decode(errors="replace"))
    row.seconds = time.monotonic() - started
    row.peak_bytes = max(usage.peak_bytes, row.peak_bytes or 0)
    return row


def _watch(child: subprocess.Popen[bytes], limits: Limits, usage: Usage) -> str:
    """Wait for the child's end; why it had to be ended, if it had."""
    started = time.monotonic()
    while child.poll() is None:
        usage.peak_bytes = max(usage.peak_bytes, resident(child.pid))
        if usage.peak_bytes > limits.memory_bytes:
            return f"took more than {limits.memory_bytes / 1e9:.3g} GB of memory"
        if time.monotonic() - started > limits.seconds:
            return f"took longer than {limits.seconds:g} s"
        time.sleep(INTERVAL_S)
    return ""


def resident(pid: int) -> int:
    """Resident bytes of a process and its descendants; of those that still live."""
    total = 0
    for process in _family(pid):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child with the engines that it started."""
    for process in _family(child.pid) if child.poll() is None else []:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    child.wait()


def _death(code: int, words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()] or ["no last words"]
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"died ({name}): {lines[-1]}"


def main() -> None:
    """Read a task, carry it out, leave the row."""
    task = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    from ovit_deploy.qualify.stages import qualify as carry_out

    folder = Path(task["folder"])
    row = carry_out(task["model"], Settings.from_dict(task["settings"]), folder)
    (folder / "row.json").write_text(json.dumps(row.as_dict()))


if __name__ == "__main__":
    main()
