"""What a block of code costs: seconds, and the memory that the process holds at its highest meanwhile."""

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

# Between two looks at the memory. A peak that is over sooner can be missed.
INTERVAL_S = 0.005


@dataclass
class Cost:
    """Filled in when the block is over.

    Args:
        seconds: Wall clock.
        peak_bytes: Highest resident memory of the process, all that it held before included.
        extra_bytes: By how much that is above what the process held when the block began.
    """

    seconds: float = 0.0
    peak_bytes: int = 0
    extra_bytes: int = 0


@contextmanager
def metered() -> Iterator[Cost]:
    """The cost of the block, from a thread that looks at the resident memory every few milliseconds."""
    gc.collect()
    process, cost, over = psutil.Process(), Cost(), threading.Event()
    before = cost.peak_bytes = process.memory_info().rss

    def look() -> None:
        while not over.wait(INTERVAL_S):
            cost.peak_bytes = max(cost.peak_bytes, process.memory_info().rss)

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    started = time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - started
        over.set()
        watch.join()
        cost.peak_bytes = max(cost.peak_bytes, process.memory_info().rss)
        cost.extra_bytes = cost.peak_bytes - before
