"""Runs in several processes, forked from the server of run_to_kill: what a rank does, and how many of them end how."""

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import run_to_kill
from run_to_kill import GRADUAL, die, go
from torch import distributed

from ovit_deploy.errors import InterruptedRunError, RankError
from ovit_deploy.finetune.loop import Progress
from ovit_deploy.finetune.run import Watchers

# Nothing in it enlarges rounding (Adam divides by the gradient's size at first, small damping by next to nothing) or
# is drawn by each rank for itself (drop path).
SHARED = (
    GRADUAL.replace("ema_decay: 0.9, ", "ema_decay: 0.9, optimizer: sgd, ")
    .replace(", drop_path: 0.1", "")
    .replace("num_grads: 32", "num_grads: 32\n    damp: 0.01")
)
LOST, STOPPED = 3, 4  # exit codes


def in_ranks(size: int, folder: Path, what: Callable[..., Any], *arguments: Any, patience: float = 300) -> list[int]:
    """The exit codes of ``size`` processes that do it together."""
    folder.mkdir(exist_ok=True)
    store = folder / f"store-{len(list(folder.glob('store-*')))}"
    ranks = [run_to_kill.start(_rank, rank, size, store, patience, what, arguments) for rank in range(size)]
    for process in ranks:
        process.join(300)
    hanging = [process for process in ranks if process.exitcode is None]
    for process in hanging:
        process.kill()
    assert not hanging, "ranks hang"
    return [process.exitcode for process in ranks]


def _rank(rank: int, size: int, store: Path, patience: float, what: Callable[..., Any], arguments: Any) -> None:
    limit = timedelta(seconds=patience)
    distributed.init_process_group("gloo", f"file://{store}", timeout=limit, rank=rank, world_size=size)
    try:
        what(*arguments)
    except RankError as error:
        store.with_name(f"lost-{rank}").write_text(str(error))
        sys.exit(LOST)
    except InterruptedRunError as error:
        store.with_name(f"stopped-{rank}").write_text(str(error))
        sys.exit(STOPPED)
    distributed.destroy_process_group()


def whole(runs: Path, resume: bool = False) -> None:
    go(runs, SHARED, resume=resume)


def all_die(runs: Path, step: int) -> None:
    """Of a run that goes on."""
    run_to_kill.dying_at_step(runs, step, SHARED, True)


def at_step(step: int, act: Callable[[], None], which: int) -> Watchers:
    """Rank ``which`` acts after that step."""

    def watch(done: Progress) -> None:
        if done.step == step and distributed.get_rank() == which:
            act()

    return Watchers(step=watch)


def one_acts(runs: Path, step: int, act: Callable[[], None], which: int) -> None:
    go(runs, SHARED, watchers=at_step(step, act, which))


def one_dies(runs: Path, step: int, which: int) -> None:
    one_acts(runs, step, die, which)
