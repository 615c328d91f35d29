"""Which Python runs an engine. Some get an environment of their own, made on first use and kept.

A virtual environment cannot be moved, so it is made in place: under a lock, with a marker written last.
Without the marker (pip failed, the machine went down) the next use makes it anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ovit_deploy import catalog
from ovit_deploy.engines import ENGINES, cuda
from ovit_deploy.engines.base import Machine, Traits
from ovit_deploy.errors import EngineError

MARKER = ".complete"
PYTHONS = ("python3.11", "python3.10", "python3.9", "python3.8")
TELL_VERSION = "import sys; print(*sys.version_info[:2])"
Report = Callable[[str], None]


@dataclass(frozen=True)
class Environment:
    """The command that starts Python there, and the variables to set."""

    command: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)


def prepare(engine: str, report: Report) -> Environment:
    """The environment that ``engine`` runs in, made first if it is not there yet.

    Args:
        engine: one of ``engines.ENGINES``.
        report: told, once, what is installed, where and under which licence.

    Raises:
        EngineError: this machine cannot run the engine, or its environment cannot be made.
    """
    if ENGINES[engine].gpu:
        cuda.require(engine)
    return install(engine, report)


def install(engine: str, report: Report) -> Environment:
    """The same without asking for a GPU: what runs on one may be installed before there is one.

    Raises:
        EngineError: as `prepare`.
    """
    traits = ENGINES[engine]
    if not traits.pins:
        return Environment((sys.executable,), traits.variables)
    if traits.machine:
        require_machine(engine, traits.machine, here())
    folder = location(engine)
    try:
        if not is_complete(folder, traits.pins):
            with lock(folder, report):
                if not is_complete(folder, traits.pins):
                    make(folder, traits, report)
    except OSError as error:
        writable = "point OVIT_DEPLOY_CACHE to a folder that can be written"
        raise EngineError(f"{folder}: cannot be made ({error.strerror})", writable) from None
    return Environment((str(folder / "bin" / "python"), "-I"), traits.variables)


def location(engine: str) -> Path:
    """Where the own environment of ``engine`` is kept."""
    return catalog.cache_dir() / "envs" / ENGINES[engine].pins[0].replace("==", "-")


def is_complete(folder: Path, pins: tuple[str, ...]) -> bool:
    """Whether the environment was made to the end, with these very pins."""
    try:
        return json.loads((folder / MARKER).read_text()) == list(pins)
    except (OSError, ValueError):
        return False


def make(folder: Path, traits: Traits, report: Report) -> None:
    """A virtual environment at ``folder`` with the engine's pins; one that was begun there is thrown away.

    Raises:
        EngineError: no Python fits, or pip fails.
    """
    python = find_python() if traits.old_python else sys.executable
    report(f"installing {traits.pins[0].replace('==', ' ')} into {folder}, once: about 0.5 GB, some minutes")
    report(f"its licence: {traits.licence}")
    shutil.rmtree(folder, ignore_errors=True)
    run_step([python, "-I", "-m", "venv", str(folder)], folder)
    pip = [str(folder / "bin" / "python"), "-I", "-m", "pip"]
    run_step([*pip, "install", "--no-input", "--quiet", *traits.pins], folder)
    (folder / MARKER).write_text(json.dumps(list(traits.pins)))


def run_step(command: list[str], folder: Path) -> None:
    """Run one command of the installation.

    Raises:
        EngineError: it failed; the message carries its last line.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        what = "pip" if "pip" in command else "venv"
        hint = "check the network and the free space, then run it again; only this engine needs it"
        raise EngineError(f"{folder}: {what} failed: {last}", hint)


def find_python() -> str:
    """A Python from 3.8 to 3.11: ours if it fits, else the newest on the path that really starts.

    Raises:
        EngineError: there is none.
    """
    for candidate in (sys.executable, *PYTHONS):
        found = shutil.which(candidate)
        if found and (3, 8) <= version_of(found) <= (3, 11):
            return found
    ours = platform.python_version()
    raise EngineError(
        f"DeepSparse needs a Python from 3.8 to 3.11; this one is {ours} and the path has none",
        "install Python 3.11 so that python3.11 is found on the path",
    )


def version_of(python: str) -> tuple[int, ...]:
    """(major, minor) of a Python; (0, 0) if it does not start, as a version manager's stand-ins may not."""
    done = subprocess.run([python, "-I", "-c", TELL_VERSION], capture_output=True, text=True, check=False)
    return tuple(int(part) for part in done.stdout.split()) if done.returncode == 0 else (0, 0)


@contextlib.contextmanager
def lock(folder: Path, report: Report) -> Iterator[None]:
    """Only one process at a time makes the environment at ``folder``; others wait for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another ovit-deploy that installs into {folder}")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def require_machine(engine: str, needed: Machine, found: Machine) -> None:
    """Refuse a machine that ``engine`` has no binary for.

    Raises:
        EngineError: another system or kind of processor, or one that lacks instructions.
    """
    hint = "bench --engine onnxruntime runs everywhere"
    if (found.system, found.processor) != (needed.system, needed.processor):
        only, this = (f"{machine.system} {machine.processor}" for machine in (needed, found))
        raise EngineError(f"{engine} runs on {only} only, this is {this}", hint)
    if missing := sorted(needed.instructions - found.instructions):
        raise EngineError(f"{engine} needs a CPU with {', '.join(missing)}, which this one has not", hint)


def here() -> Machine:
    """This machine."""
    return Machine(platform.system(), platform.machine(), cpu_flags())


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Instruction sets of the CPU, as the kernel names them; empty where it does not tell."""
    if not os.access(cpuinfo, os.R_OK):
        return frozenset()
    lines = cpuinfo.read_text().splitlines()
    return frozenset(next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "").split())
