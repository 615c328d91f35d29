"""Pieces on engines, timed in turns: whatever slows the machine down slows all of them, so they can be compared.

What was measured is kept in the cache folder, one file a session: figures of one file were taken side by side. Its name
is the hash of all that they depend on: machine, engines and their versions, the model's structure, pieces, batch size,
threads.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from torch import nn

from ovit_deploy import catalog, checkpoint
from ovit_deploy.bench import hardware, measure
from ovit_deploy.bench.latency import Watch
from ovit_deploy.engines import environments, inventory
from ovit_deploy.engines.process import EngineProcess
from ovit_deploy.engines.selection import Selection
from ovit_deploy.errors import EngineError
from ovit_deploy.explain.pieces import Piece, Workshop, blocks_of

FORMAT = 1
WARM_UP_RUNS = 3
# Milliseconds of every round.
Rounds = list[float]


@dataclass(frozen=True)
class Timed:
    """A piece on an engine."""

    engine: str
    piece: Piece

    def __str__(self) -> str:
        return f"{self.engine}: {self.piece}"


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        threads: Of each engine.
        duration_s: Timed seconds of each piece.
        seed: Of the order of measuring.
        timeout_s: How long one step of an engine may take.
        fresh: Measure again what the cache holds.
    """

    threads: int = 1
    duration_s: float = 5.0
    seed: int = 0
    timeout_s: float = 600.0
    fresh: bool = False


class Bench:
    """A model's workshop, and the sessions that were measured of it."""

    def __init__(self, workshop: Workshop, settings: Settings, watch: Watch) -> None:
        self.workshop, self.settings, self.watch = workshop, settings, watch

    def rounds(self, wanted: Sequence[Timed]) -> dict[Timed, Rounds]:
        """The median of every round of each, from the cache if all were measured together before.

        Raises:
            EngineError: an engine is missing, or fails on a piece.
        """
        wanted = list(dict.fromkeys(wanted))
        key = self._key(wanted)
        path = catalog.cache_dir() / "latency" / f"{_digest(key)}.json"
        told: dict[str, Any] | None = None if self.settings.fresh else _read(path, key, self.watch)
        if told is None:
            load = hardware.describe()["load_average"][0]
            told = {"key": key, "load": load, "rounds_ms": self._measure(wanted)}
            path.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.write(path, json.dumps(told, indent=1))
        return {one: told["rounds_ms"][str(one)] for one in wanted}

    def _key(self, wanted: Sequence[Timed]) -> dict[str, Any]:
        machine = hardware.describe()
        return {
            "format": FORMAT,
            "machine": [machine[name] for name in ("cpu", "instructions", "usable_cores")],
            "engines": {one.engine: inventory.status(Selection.parse(one.engine).engine).version for one in wanted},
            "packages": {name: machine["packages"].get(name) for name in ("torch", "timm", "onnx")},
            "model": structure(self.workshop.model),
            "pieces": sorted(map(str, wanted)),
            "batch_size": self.workshop.batch_size,
            "threads": self.settings.threads,
            "duration_s": self.settings.duration_s,
        }

    def _measure(self, wanted: Sequence[Timed]) -> dict[str, Rounds]:
        with ExitStack() as stack:
            runs = {str(one): self._start(one, stack).run for one in wanted}
            estimates_ms = {name: median(run(WARM_UP_RUNS)) for name, run in runs.items()}
            plan = measure.plan_duration(estimates_ms, self.settings.duration_s)
            self.watch.report(f"timing {len(runs)} pieces in turns")
            found = measure.interleave(runs, plan, seed=self.settings.seed, on_round=self.watch.on_round)
        for failure in found.failures.values():
            raise failure
        return {name: [median(block) for block in blocks] for name, blocks in found.blocks.items()}

    def _start(self, one: Timed, stack: ExitStack) -> EngineProcess:
        selection = Selection.parse(one.engine)
        if selection.traits.reads != "onnx":
            raise EngineError(f"{one.engine} runs checkpoints, explain times ONNX pieces", "choose another --engine")
        environment = environments.prepare(selection.engine, self.watch.report)
        file = self.workshop.file(one.piece)
        self.watch.report(f"loading {one}")
        process = stack.enter_context(EngineProcess(one.engine, environment, timeout_s=self.settings.timeout_s))
        process.load(file, self.workshop.images, batch_size=self.workshop.batch_size, threads=self.settings.threads)
        return process


def structure(model: nn.Module) -> str:
    """A digest of what the layers of a model are, without their values."""
    heads = [block.attn.num_heads for block in blocks_of(model)]
    shapes = [(name, tuple(value.shape)) for name, value in model.named_parameters()]
    return hashlib.sha256(f"{model!r} {heads} {shapes}".encode()).hexdigest()


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _read(path: Path, key: Mapping[str, Any], watch: Watch) -> dict[str, Any] | None:
    """What the cache holds of a session; a damaged file is told of, and measured again."""
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text())
        if told["key"] == key:
            watch.report(f"{len(told['rounds_ms'])} pieces from the cache, measured at load {told['load']:.1f}")
            return told
    except (ValueError, KeyError):
        pass
    watch.report(f"{path}: damaged, measured again")
    return None
