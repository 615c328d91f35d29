"""A folder that is replaced whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ovit_deploy.errors import RunError


@contextlib.contextmanager
def replacing(destination: Path, *, marker: str) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of ``destination`` when the block ends well.

    The new folder stands beside the old one, is flushed to disk and swapped in by renaming; whatever goes wrong
    before that, an interrupt included, leaves the old folder untouched and removes the new one.

    Args:
        destination: the folder to replace or make.
        marker: a file that a folder must hold to be replaced, so that a mistyped path destroys nothing.

    Raises:
        RunError: ``destination`` holds something else, or cannot be written.
    """
    _refuse_foreign(destination, marker)
    partial = _beside(destination, "partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        _make(partial)
        yield partial
        _flush(partial)
        _swap(partial, destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _beside(destination: Path, role: str) -> Path:
    return destination.with_name(f".{destination.name}.{role}-{os.getpid()}")


def _refuse_foreign(destination: Path, marker: str) -> None:
    if not destination.exists():
        return
    if not destination.is_dir() or (any(destination.iterdir()) and not (destination / marker).is_file()):
        raise RunError(f"{destination}: exists and is not an export", "name another folder with --output")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RunError(
            f"{folder.parent}: cannot be written ({error.strerror})", "name a folder you may write to with --output"
        ) from error


def _flush(folder: Path) -> None:
    """Everything in the folder on the disk, names included."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _swap(new: Path, destination: Path) -> None:
    old = _beside(destination, "old")
    try:
        if destination.exists():
            destination.rename(old)
        new.rename(destination)
    finally:
        if old.exists() and not destination.exists():
            old.rename(destination)
        shutil.rmtree(old, ignore_errors=True)
