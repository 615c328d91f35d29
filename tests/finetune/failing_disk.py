"""A disk that fills up or fails at one call of many."""

import errno
import os
from pathlib import Path

import pytest


class Disk:
    """Counts writes, flushes and renamings, and lets one of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing: int | None = None
        self.error = errno.ENOSPC
        self.calls = 0
        fsync, opened = os.fsync, Path.open

        def counted(move):
            def moved(path: Path, target: Path) -> Path:
                self.count()
                return move(path, target)

            return moved

        def flush(descriptor: int) -> None:
            self.count()
            fsync(descriptor)

        def open_counted(path: Path, mode: str = "r", *rest, **named):
            file = opened(path, mode, *rest, **named)
            return _Written(file, self) if mode[0] in "wa" else file

        monkeypatch.setattr(Path, "replace", counted(Path.replace))
        monkeypatch.setattr(Path, "rename", counted(Path.rename))
        monkeypatch.setattr(os, "fsync", flush)
        monkeypatch.setattr(Path, "open", open_counted)

    def count(self) -> None:
        self.calls += 1
        if self.calls == self.failing:
            raise OSError(self.error, os.strerror(self.error))


class _Written:
    """A file whose writing may fail half-way."""

    def __init__(self, file, disk: Disk) -> None:
        self.file = file
        self.disk = disk

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.file.close()

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def write(self, content: bytes | str) -> None:
        self.file.write(content[: len(content) // 2])
        self.disk.count()
        self.file.write(content[len(content) // 2 :])
