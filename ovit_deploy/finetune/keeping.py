"""When a run is saved, and how it stops: after epochs and prunings, every ten minutes, and when it is asked to end."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ovit_deploy.errors import RunInterrupted
from ovit_deploy.finetune import generations
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
    before = {number: signal.getsignal(number) for number in _SIGNALS}

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


class Keeper:
    """Saves where training stands, with what the run has noted so far.

    Args:
        folder: of the checkpoints.
        asked: whether to end.
        noted: makes what else the checkpoint holds.
        command: how to go on, as a user types it.
    """

    def __init__(self, folder: Path, asked: Asked, noted: Callable[[], dict[str, Any]], command: str) -> None:
        self.folder = folder
        self.asked = asked
        self.noted = noted
        self.command = command
        self.saved = time.monotonic()

    def __call__(self, at: Standing, due: bool) -> None:
        """Save if it is ``due``, or a while ago, or the process is to end.

        Raises:
            RunInterrupted: all is saved, and the process is to end.
            OSError: it cannot be saved; what was saved before is still there.
        """
        by = self.asked.by
        if not due and by is None and time.monotonic() - self.saved < SECONDS_BETWEEN:
            return
        content: Tree = {"training": at.as_tree(), "noted": self.noted()}
        generations.save(self.folder, content, step=at.step, acted=at.acted)
        self.saved = time.monotonic()
        if by is not None:
            raise RunInterrupted(f"stopped by {by.name} before step {at.step}; all is saved", self.command, by)
