"""A run's folder while the run goes on: it appears whole or not at all, and what was cut off can be resumed.

The folder is ``runs/.<name>.partial``, renamed to ``runs/<name>`` when everything in it is complete. Its subfolder
``resume/`` holds what a run that was cut off goes on from (finetune/generations.py); it is removed at the end.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ovit_deploy.checkpoint import RUNS, flush_folder
from ovit_deploy.errors import RunError

RESUME = "resume"


@contextlib.contextmanager
def new_run(name: str, runs: Path = RUNS, *, resume: bool = False) -> Iterator[Path]:
    """A folder to work in that becomes ``runs/<name>`` when the block ends well.

    When it does not end well, the folder goes away, unless the run can be resumed from it. One process at a time
    works in it: it holds a lock, which the system takes back when the process dies.

    Args:
        name: of the run.
        runs: the folder of all runs.
        resume: work in the folder that a run left which was cut off.

    Raises:
        RunError: the name is taken, there is nothing to resume, or the folder cannot be written.
    """
    final, partial = runs / name, partial_folder(name, runs)
    if final.exists():
        shutil.rmtree(final / RESUME, ignore_errors=True)  # left where a run died right after its renaming
        raise RunError(f"{final} exists already" + ": it is complete" * resume, "choose another --name")
    if resume and not is_resumable(partial):
        raise RunError(f"{partial}: no checkpoint to resume from", "start the run again, without --resume")
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{runs}: cannot be written ({error.strerror})", "work in a folder you may write to") from error
    with _locked(partial):
        if final.exists():
            raise RunError(f"{final} exists already", "choose another --name")
        if not resume:
            _clear(partial, name)
        try:
            yield partial
            partial.rename(final)
            flush_folder(runs)
        except BaseException:
            if partial.exists() and not is_resumable(partial):
                shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(final / RESUME, ignore_errors=True)


def partial_folder(name: str, runs: Path = RUNS) -> Path:
    """Where a run of that name works until it is complete."""
    return runs / f".{name}.partial"


def is_resumable(partial: Path) -> bool:
    """Whether there is a checkpoint to go on from."""
    return any((partial / RESUME).glob("*.safetensors"))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{folder}: a run of that name is going on", "choose another --name") from error
        yield
    finally:
        os.close(descriptor)


def _clear(partial: Path, name: str) -> None:
    """Remove what a run left that died before its first checkpoint; refuse to remove more."""
    if is_resumable(partial):
        raise RunError(
            f"{partial}: a run of that name was cut off",
            f"go on with ovit-deploy prune --resume {name}, or remove the folder, or choose another --name",
        )
    for path in partial.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
