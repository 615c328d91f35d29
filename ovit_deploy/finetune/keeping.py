"""When a run is saved, and how it stops: after epochs and prunings, every ten minutes, and when it is asked to end."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from ovit_deploy.errors import InterruptedRunError
from ovit_deploy.finetune import generations
from ovit_deploy.finetune.evaluate import Accuracy, Evaluation
from ovit_deploy.finetune.standing import Standing
from ovit_deploy.finetune.tree import Tree

SECONDS_BETWEEN = 600.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Asked:
    """Whether the process was asked to end, and by which signal."""

    by: signal.Signals | None = None


@contextlib.contextmanager
def noting_signals() -> Iterator[Asked]:
    """Note the first SIGINT or SIGTERM instead of ending at once; a second one ends the process as it always does.

    Signals reach the main thread only: in any other nothing is changed.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}

    def note(number: int, _: FrameType | None) -> None:
        asked.by = signal.Signals(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Journal:
    """What a run notes beside training, and saves with it; metrics.jsonl in ``folder`` is written a line at a time."""

    folder: Path
    dense: Evaluation | None
    lines: list[str] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)  # steps
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self._file.write_text("".join(f"{line}\n" for line in self.lines))

    @classmethod
    def from_tree(cls, folder: Path, saved: Tree, step: int) -> "Journal":
        """The journal of a run that goes on at ``step``."""
        dense = None if saved["dense"] is None else Evaluation(Accuracy(*saved["dense"][:2]), saved["dense"][2])
        started = time.perf_counter() - saved["seconds"]
        return cls(folder, dense, saved["lines"], [*saved["resumed_at"], step], started)

    def as_tree(self) -> Tree:
        """To save."""
        dense = (
            None if self.dense is None else [self.dense.accuracy.correct, self.dense.accuracy.total, self.dense.loss]
        )
        return {"dense": dense, "lines": self.lines, "resumed_at": self.resumed_at, "seconds": self.seconds}

    @property
    def seconds(self) -> float:
        """Of work, without the time in which nothing ran."""
        return time.perf_counter() - self.started

    def record(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        self.lines.append(json.dumps(line))
        with self._file.open("a") as file:
            file.write(f"{self.lines[-1]}\n")

    @property
    def _file(self) -> Path:
        return self.folder / "metrics.jsonl"


class Keeper:
    """Saves where training stands, and the journal.

    Args:
        folder: of the checkpoints.
        asked: whether to end.
        journal: saved beside training.
        command: how to go on, as a user types it.
    """

    def __init__(self, folder: Path, asked: Asked, journal: Journal, command: str) -> None:
        self.folder = folder
        self.asked = asked
        self.journal = journal
        self.command = command
        self.saved = time.monotonic()

    def __call__(self, at: Standing, due: bool) -> None:
        """Save if it is ``due``, or a while ago, or the process is to end.

        Raises:
            InterruptedRunError: all is saved, and the process is to end.
            OSError: it cannot be saved; what was saved before is still there.
        """
        by = self.asked.by
        if not due and by is None and time.monotonic() - self.saved < SECONDS_BETWEEN:
            return
        content: Tree = {"training": at.as_tree(), "journal": self.journal.as_tree()}
        generations.save(self.folder, content, step=at.step, acted=at.acted)
        self.saved = time.monotonic()
        if by is not None:
            raise InterruptedRunError(f"stopped by {by.name} before step {at.step}; all is saved", self.command, by)
