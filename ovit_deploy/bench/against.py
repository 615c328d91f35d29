"""A benchmark against an earlier one: the same contestants, how much faster each is now, and what was not the same."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ovit_deploy.bench import hardware
from ovit_deploy.bench.statistics import units
from ovit_deploy.bench.verdict import RESAMPLES, SpeedUp, expanded_tail, judge
from ovit_deploy.errors import OvitError

Document = Mapping[str, Any]
CONTESTANT = ("model", "engine", "weights", "batch_size", "threads", "scenario")
USUAL = {"scenario": "single_stream"}  # of results that do not say it
MACHINE = ("cpu", "instructions", "physical_cores", "usable_cores")
SOFTWARE = ("system", "python")


@dataclass(frozen=True)
class Match:
    """A contestant that both have.

    Args:
        contestant: model, engine with its options, weights, batch size, threads.
        then_ms: earlier median.
        now_ms: median now.
        factor: then over now: above 1 is faster now.
        speed_up: the same over units with its interval; None where there are no single runs to take it from.
    """

    contestant: dict[str, Any]
    then_ms: float
    now_ms: float
    factor: float
    speed_up: SpeedUp | None


@dataclass(frozen=True)
class Unmatched:
    """A contestant that cannot be compared, and why."""

    contestant: dict[str, Any]
    why: str


@dataclass(frozen=True)
class Against:
    """All of it.

    Args:
        matches: contestants that both have.
        unmatched: those that only one has, or that failed in one.
        machine: what differs of the machines; ratios then tell of machines, not of code.
        software: what differs of versions.
        busy: when there was other work on the machine, with its load; no interval holds what that does.
    """

    matches: tuple[Match, ...]
    unmatched: tuple[Unmatched, ...]
    machine: tuple[str, ...]
    software: tuple[str, ...]
    busy: tuple[str, ...] = ()

    @property
    def slower(self) -> tuple[Match, ...]:
        """What is slower now on the same machine."""
        if self.machine:
            return ()
        return tuple(match for match in self.matches if match.speed_up and match.speed_up.verdict == "slower")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def load(path: Path) -> Document:
    """An earlier result of ``bench``.

    Raises:
        OvitError: the file is missing, or holds no latencies.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OvitError(f"--against {path}: {error.strerror}", "give a bench.json that bench wrote") from error
    except ValueError as error:
        raise OvitError(f"--against {path}: not JSON ({error})", "give a bench.json that bench wrote") from error
    if not isinstance(document, dict) or document.get("kind") != "latency" or "rows" not in document:
        raise OvitError(f"--against {path}: holds no latencies", "give a bench.json of latencies, not of the pruner")
    return document


def compare(now: Document, then: Document, seed: int = 0) -> Against:
    """Contestants of two results side by side; both as ``bench`` writes them.

    Args:
        now: the new result.
        then: the earlier one.
        seed: of the bootstrap.
    """
    new, old = _by_contestant(now["rows"]), _by_contestant(then["rows"])
    both = [key for key in new if key in old]
    matches = [_match(new[key], old[key], seed) for key in both if not _failure(new[key], old[key])]
    unmatched = [Unmatched(_named(new[key]), _failure(new[key], old[key])) for key in both]
    unmatched += [Unmatched(_named(row), "not in the earlier result") for key, row in new.items() if key not in old]
    unmatched += [Unmatched(_named(row), "not measured now") for key, row in old.items() if key not in new]
    busy = [_busy(document["hardware"], when) for document, when in ((then, "then"), (now, "now"))]
    return Against(
        tuple(matches),
        tuple(one for one in unmatched if one.why),
        _differences(now["hardware"], then["hardware"], MACHINE),
        (
            *_differences(now["hardware"], then["hardware"], SOFTWARE),
            *_differences(now["hardware"].get("packages", {}), then["hardware"].get("packages", {})),
        ),
        tuple(filter(None, busy)),
    )


def _busy(machine: Document, when: str) -> str:
    known = machine.get("load_average") and machine.get("usable_cores")
    if not known or not hardware.is_busy(dict(machine)):
        return ""
    return f"load {machine['load_average'][0]:.1f} on {machine['usable_cores']} cores {when}"


def _by_contestant(rows: Sequence[Document]) -> dict[tuple[Any, ...], Document]:
    return {tuple(row.get(key, USUAL.get(key)) for key in CONTESTANT): row for row in rows}


def _named(row: Document) -> dict[str, Any]:
    return {key: row[key] for key in CONTESTANT if key in row}


def _failure(new: Document, old: Document) -> str:
    """Why there is no ratio; empty if there is one."""
    for row, when in ((new, "now"), (old, "then")):
        if "median_ms" not in (row.get("latency") or {}):
            return f"failed {when}: {row.get('error') or 'no median'}"
    return ""


def _match(new: Document, old: Document, seed: int) -> Match:
    now_ms, then_ms = new["latency"]["median_ms"], old["latency"]["median_ms"]
    units_then, units_now = units(old.get("blocks_ms") or []), units(new.get("blocks_ms") or [])
    found = unpaired(units_then, units_now, seed) if min(len(units_then), len(units_now)) > 1 else None
    return Match(_named(new), then_ms, now_ms, then_ms / now_ms, found)


def unpaired(then_ms: Sequence[Sequence[float]], now_ms: Sequence[Sequence[float]], seed: int) -> SpeedUp:
    """The ratio of the medians over units of a unit's median, then over now, with its 95 % bootstrap interval.

    The two were not measured side by side, so units are drawn for each by itself (Efron & Tibshirani, An Introduction
    to the Bootstrap, 1993, chapter 8); tails are those of the smaller number of units (see ``verdict``).

    Args:
        then_ms: latencies in ms, one sequence a unit; two units at least.
        now_ms: the same of the other result.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)
    then, now = (np.array([np.median(unit) for unit in units]) for units in (then_ms, now_ms))
    draws = [medians[random.integers(len(medians), size=(RESAMPLES, len(medians)))] for medians in (then, now)]
    drawn = np.median(draws[0], axis=1) / np.median(draws[1], axis=1)
    count = min(len(then), len(now))
    tail = expanded_tail(count)
    low, high = map(float, np.quantile(drawn, [tail, 1 - tail]))
    return SpeedUp(float(np.median(then) / np.median(now)), low, high, judge(low, high, count))


def _differences(new: Document, old: Document, keys: Sequence[str] | None = None) -> tuple[str, ...]:
    """What differs, in words; of all keys by default."""
    names = keys or list(dict.fromkeys((*new, *old)))
    pairs = [(name, _told(old.get(name)), _told(new.get(name))) for name in names]
    return tuple(f"{name}: {then} then, {now} now" for name, then, now in pairs if then != now)


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "unknown" if value is None else str(value)
