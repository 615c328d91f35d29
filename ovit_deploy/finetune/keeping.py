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

from ovit_deploy.accuracy import Accuracy
from ovit_deploy.errors import InterruptedRunError, RunError
from ovit_deploy.finetune import generations
from ovit_deploy.finetune.evaluate import Evaluation
from ovit_deploy.finetune.standing import Standing
from ovit_deploy.finetune.tracking import Tracker
from ovit_deploy.finetune.tree import Tree
from ovit_deploy.pruning.ranks import ALONE, Ranks
from ovit_deploy.working_folder import is_resumable

SECONDS_BETWEEN = 600.0
_METRICS = "metrics.jsonl"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Asked:
    """Whether the process was asked to end, and by which signal."""

    by: signal.Signals | None = None


@contextlib.contextmanager
def noting_signals(*, once: bool = True) -> Iterator[Asked]:
    """Note the first SIGINT or SIGTERM instead of ending at once; a second one ends the process as it always does.

    Not so without ``once``: a process of several may get the same signal from more than one sender.
    Signals reach the main thread only: in any other nothing is changed.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}

    def note(number: int, _: FrameType | None) -> None:
        asked.by = signal.Signals(number)
        for each, handler in before.items() if once else ():
            signal.signal(each, handler)

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def going_on(folder: Path, command: str) -> Iterator[None]:
    """What the disk refuses is told together with how to go on, where there is a checkpoint to go on from.

    Raises:
        RunError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        if not is_resumable(folder):
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise RunError(
            f"{where}{error.strerror or error}", f"free or mend the disk, then go on with {command}"
        ) from error


@dataclass
class Journal:
    """What a run notes beside training, and saves with it; metrics.jsonl in ``folder`` is written a line at a time.

    Without a folder nothing is written: so do all ranks but the first. A tracker is told every line, too.
    """

    folder: Path | None
    dense: Evaluation | None
    lines: list[str] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)  # steps
    started: float = field(default_factory=time.perf_counter)
    tracker: Tracker | None = None

    def __post_init__(self) -> None:
        if self.folder is not None:
            (self.folder / _METRICS).write_text("".join(f"{line}\n" for line in self.lines))
        if self.tracker is not None:
            for line in self.lines:
                self.tracker.tell(json.loads(line))

    @classmethod
    def from_tree(cls, folder: Path | None, saved: Tree, step: int, tracker: Tracker | None = None) -> "Journal":
        """The journal of a run that goes on at ``step``."""
        dense = None if saved["dense"] is None else Evaluation(Accuracy(*saved["dense"][:2]), saved["dense"][2])
        started = time.perf_counter() - saved["seconds"]
        return cls(folder, dense, saved["lines"], [*saved["resumed_at"], step], started, tracker)

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
        if self.tracker is not None:
            self.tracker.tell(line)
        if self.folder is not None:
            with (self.folder / _METRICS).open("a") as file:
                file.write(f"{self.lines[-1]}\n")


class Keeper:
    """Saves where training stands, and the journal; all ranks call it, the first one writes.

    Args:
        folder: of the checkpoints.
        asked: whether to end.
        journal: saved beside training.
        command: how to go on, as a user types it.
        ranks: the processes of the run; all end when one of them is asked to.
    """

    def __init__(self, folder: Path, asked: Asked, journal: Journal, command: str, ranks: Ranks = ALONE) -> None:
        self.folder = folder
        self.asked = asked
        self.journal = journal
        self.command = command
        self.ranks = ranks
        self.saved = time.monotonic()

    def __call__(self, at: Standing, due: bool) -> None:
        """Save if it is ``due``, or a while ago, or the process is to end.

        Raises:
            InterruptedRunError: all is saved, and the process is to end.
            OSError: it cannot be saved; what was saved before is still there.
        """
        by = self._asked_by()
        if not due and by is None and time.monotonic() - self.saved < SECONDS_BETWEEN:
            return
        content: Tree = {"training": at.as_tree(), "journal": self.journal.as_tree()}
        if self.ranks.is_first:
            generations.save(self.folder, content, step=at.step, acted=at.acted)
        self.saved = time.monotonic()
        if by is not None:
            self.ranks.totals(0)  # who left earlier would have the first one ended while it writes
            raise InterruptedRunError(f"stopped by {by.name} before step {at.step}; all is saved", self.command, by)

    def _asked_by(self) -> signal.Signals | None:
        """The signal that any rank got."""
        counts = self.ranks.totals(*(self.asked.by == number for number in _SIGNALS))
        return next((number for number, count in zip(_SIGNALS, counts, strict=True) if count), None)
