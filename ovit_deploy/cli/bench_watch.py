"""What a user sees while ``bench`` works: the machine before, and progress."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ovit_deploy.cli import render

if TYPE_CHECKING:
    from ovit_deploy.bench.settings import Watch


def machine() -> dict[str, Any]:
    """What we run on; a warning if it is busy."""
    from ovit_deploy.bench import hardware, noise

    _, busy = noise.look(hardware.usable_cores())
    if busy is not None and busy > noise.MAX_BUSY:
        render.warning(f"other work takes {busy:.0%} of the cores: times will be long and unsteady; trust ratios only")
    return hardware.describe()


@contextmanager
def watching() -> "Iterator[Watch]":
    """A progress bar over rounds, and notes above it."""
    from ovit_deploy.bench.settings import Watch

    with render.progress() as bar:
        task = bar.add_task("rounds", total=None, visible=False, start=False)

        def on_round(done: int, total: int) -> None:
            if not done:
                bar.reset(task)
            bar.update(task, completed=done, total=total, visible=True)

        yield Watch(render.note, on_round)
