"""What metrics.jsonl records, told to a tracker, too: ``--track tensorboard``, ``trackio`` or ``wandb``.

Each is an extra of this package, imported when it is asked for, and writes into the run's folder: wandb keeps its runs
on this machine unless the environment variable ``WANDB_MODE`` says otherwise. A run that is resumed is told from its
beginning, as metrics.jsonl is written from its beginning: the tracker's files are those of a run never cut off.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ovit_deploy.errors import OvitError

TrackerName = Literal["tensorboard", "trackio", "wandb"]
Line = dict[str, Any]
_PROJECT = "ovit-deploy"
# Where a line stands, which is no measurement.
_PLACES = ("step", "epoch")


@dataclass(frozen=True)
class Tracker:
    """Where numbers go: by their name and the step, until it is closed."""

    log: Callable[[dict[str, float], int], None]
    close: Callable[[], None]

    def tell(self, line: Line) -> None:
        """A line of metrics.jsonl."""
        self.log(scalars(line), line["step"])


def check_installed(name: TrackerName | None) -> None:
    """Refuse, before anything is trained, a tracker that is not installed.

    Raises:
        OvitError: it says what to install.
    """
    if name is not None and importlib.util.find_spec(name) is None:
        raise OvitError(f"--track {name}: {name} is not installed", f"pip install 'ovit-deploy[{name}]'")


@contextlib.contextmanager
def tracking(name: TrackerName | None, folder: Path, run: str, about: dict[str, Any]) -> Iterator[Tracker | None]:
    """The tracker called ``name``, with its files new in ``folder/<name>``; none where it is None.

    Args:
        name: of the tracker.
        folder: of the run.
        run: what the tracker calls the run.
        about: facts that are known before the first step.
    """
    if name is None:
        yield None
        return
    check_installed(name)
    own = folder / name
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    with contextlib.redirect_stdout(sys.stderr):  # trackio prints
        tracker = _STARTS[name](own.resolve(), run, about)
    try:
        yield tracker
    finally:
        with contextlib.redirect_stdout(sys.stderr):
            tracker.close()


def scalars(line: Line) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl by names such as ``epoch/loss`` and ``prune/seconds``."""
    layers = {f"layers/{name}": value for name, value in line.get("layers", {}).items()}
    numbers = {key: value for key, value in (line | layers).items() if key not in _PLACES and _is_number(value)}
    return {f"{line['event']}/{key}": float(value) for key, value in numbers.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tensorboard(folder: Path, run: str, about: dict[str, Any]) -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    writer.add_text(run, f"```\n{json.dumps(about, indent=2)}\n```", 0)

    def log(numbers: dict[str, float], step: int) -> None:
        for key, value in numbers.items():
            writer.add_scalar(key, value, step)
        writer.flush()

    return Tracker(log, writer.close)


def _trackio(folder: Path, run: str, about: dict[str, Any]) -> Tracker:
    if "trackio" in sys.modules:  # it reads the variable once
        raise OvitError("--track trackio: one run a process", "sweep with tensorboard or wandb, or one run at a time")
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    trackio.init(project=_PROJECT, name=run, config=about, embed=False)
    return Tracker(lambda numbers, step: trackio.log(numbers, step=step), trackio.finish)


def _wandb(folder: Path, run: str, about: dict[str, Any]) -> Tracker:
    import wandb

    mode: Any = os.environ.get("WANDB_MODE", "offline")
    quiet = wandb.Settings(console="off")  # what is printed is no part of the record
    session = wandb.init(project=_PROJECT, name=run, config=about, dir=str(folder), mode=mode, settings=quiet)
    return Tracker(lambda numbers, step: session.log(numbers, step=step), session.finish)


_STARTS: dict[str, Callable[[Path, str, dict[str, Any]], Tracker]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
}
