"""Is the machine quiet enough to measure on? A look before, counters during, and limits for both.

Before: how busy the cores are, from the kernel's counters over a second; the engines then get the idlest ones.
During: how long the engines' threads were ready to run and had no core, what a hypervisor stole, how long a control
group's quota held us back, and whether clocks moved. Counters say more than a load average, which is still high when
the work of the minute before has long ended.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ovit_deploy.bench import hardware
from ovit_deploy.bench.results import Row
from ovit_deploy.errors import NoiseError

LOOK_S = 1.0
MAX_BUSY = 0.25
MAX_WAITED = 0.10
MAX_STOLEN = 0.05
MAX_THROTTLED = 0.05
MAX_CLOCK_SPREAD = 0.15
HINT = "end other work and run it again, or go on with --allow-noise: times will be long, ratios less certain"


@dataclass(frozen=True)
class Counters:
    """Counters that only grow: of each core the ticks (busy, stolen, all), and seconds of throttling; when."""

    cores: dict[int, tuple[int, int, int]]
    throttled_s: float
    at_s: float


@dataclass(frozen=True)
class Noise:
    """What disturbed a benchmark; fractions of time, None where the system does not tell.

    Args:
        busy: of the cores that the engines got, before the start.
        stolen: of all usable cores by the hypervisor, from start to end.
        throttled: by the control group's quota, from start to end.
        waited: of the timed runs, with a thread ready and no core for it; of the contestant where it was most.
        clock_spread: highest over lowest clock of the engines' cores, less 1.
        reasons: why this is too much; empty if it is not.
    """

    busy: float | None = None
    stolen: float | None = None
    throttled: float | None = None
    waited: float | None = None
    clock_spread: float | None = None
    reasons: tuple[str, ...] = field(default=())


def count(stat: Path = Path("/proc/stat")) -> Counters:
    """The counters as they stand now; no cores where the system has no such file."""
    lines = stat.read_text().splitlines() if stat.is_file() else []
    cores = {}
    for line in lines:
        name, *ticks = line.split()
        if name.startswith("cpu") and name != "cpu" and int(name[3:]) in hardware.usable():
            user, nice, system, idle, iowait, irq, softirq, steal = map(int, ticks[:8])
            busy = user + nice + system + irq + softirq + steal
            cores[int(name[3:])] = (busy, steal, busy + idle + iowait)
    return Counters(cores, _throttled_s(), time.monotonic())


def busy_cores(before: Counters, after: Counters) -> dict[int, float]:
    """How busy each core was between two counts, as a fraction."""
    found = {}
    for core, (busy, _, total) in after.cores.items():
        busy_before, _, total_before = before.cores[core]
        found[core] = (busy - busy_before) / max(1, total - total_before)
    return found


def idlest(busy: Mapping[int, float], wanted: int) -> tuple[int, ...]:
    """The ``wanted`` idlest cores, one of each physical core before its second thread; empty if there are too few."""
    order, taken = sorted(busy, key=lambda core: (busy[core], core)), dict[str, int]()
    ranked = []
    for core in order:
        rank = taken.setdefault(hardware.siblings(core), 0)
        taken[hardware.siblings(core)] += 1
        ranked.append((rank, len(ranked), core))
    chosen = tuple(core for _, _, core in sorted(ranked)[:wanted])
    return chosen if len(chosen) == wanted else ()


def look(wanted: int, seconds: float = LOOK_S) -> tuple[tuple[int, ...], float | None]:
    """The idlest ``wanted`` cores, and how busy they are on average; none where the system does not tell."""
    before = count()
    time.sleep(seconds)
    busy = busy_cores(before, count())
    cores = idlest(busy, wanted)
    return cores, sum(busy[core] for core in cores) / wanted if cores else None


def require_quiet_start(busy: float | None, wanted: int) -> None:
    """Refuse to start on cores that other work uses, or with more threads than the quota pays for.

    Raises:
        NoiseError: they are busy for more than a quarter of the time, or the quota is less than ``wanted`` cores.
    """
    quota = hardware.quota_cores()
    if quota is not None and quota < wanted:
        raise NoiseError(f"a quota of {quota:g} cores for {wanted} threads: they would be throttled", HINT)
    if busy is not None and busy > MAX_BUSY:
        what = "the idlest core is" if wanted == 1 else f"the idlest {wanted} cores are"
        raise NoiseError(f"{what} busy with other work for {busy:.0%} of the time (limit {MAX_BUSY:.0%})", HINT)


def judge(before: Counters, after: Counters, busy: float | None, rows: Sequence[Row]) -> Noise:
    """What disturbed the benchmark between two counts.

    Args:
        before: counted before it.
        after: counted at its end.
        busy: the look before it.
        rows: what came out.
    """
    seconds = after.at_s - before.at_s
    stolen, total = (sum(after.cores[core][i] - before.cores[core][i] for core in after.cores) for i in (1, 2))
    clocks = [mhz for row in rows for mhz in row.clock_mhz]
    found = {
        "stolen": stolen / total if total else None,
        "throttled": (after.throttled_s - before.throttled_s) / seconds if seconds else None,
        "waited": max((row.waited for row in rows if row.waited is not None), default=None),
        "clock_spread": max(clocks) / min(clocks) - 1 if clocks else None,
    }
    limits = {
        "stolen": (MAX_STOLEN, "the hypervisor took {:.0%} of the cores' time"),
        "throttled": (MAX_THROTTLED, "the quota held the processes back for {:.0%} of the time"),
        "waited": (MAX_WAITED, "an engine waited for a core for {:.0%} of its timed runs"),
        "clock_spread": (MAX_CLOCK_SPREAD, "the cores' clock changed by {:.0%}"),
    }
    reasons = [
        f"{text.format(value)} (limit {limit:.0%})"
        for name, (limit, text) in limits.items()
        if (value := found[name]) is not None and value > limit
    ]
    return Noise(busy, **found, reasons=tuple(reasons))


def _throttled_s() -> float:
    """Seconds that our innermost control group was throttled so far."""
    for folder in hardware.cgroup_folders()[:1]:
        told = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
        return int(told.get("throttled_usec", 0)) / 1e6 + int(told.get("throttled_time", 0)) / 1e9
    return 0.0
