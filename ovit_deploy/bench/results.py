"""What a benchmark finds, as values and as a JSON file."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovit_deploy import checkpoint
from ovit_deploy.bench.agreement import Agreement
from ovit_deploy.bench.evidence import Evidence
from ovit_deploy.bench.statistics import Latency
from ovit_deploy.bench.top1 import Top1
from ovit_deploy.bench.verdict import SpeedUp


@dataclass(frozen=True)
class Row:
    """One contestant: a variant of a model on an engine. What was not reached, because it failed, is None.

    Args:
        model: what was measured, in words.
        engine: name of the engine, with its options.
        weights: which variant: ``75% zeros``, ``dense twin``, ``dense``.
        sparsity: fraction of zeros in the variant's sparse weights.
        batch_size: images a run.
        threads: of the engine.
        error: why there is no result.
        hint: what to do about it.
        load_s: seconds to import the runtime and build the model.
        compile_s: seconds to build the model, of ``load_s``.
        first_ms: ms of the first inference.
        file_mib: size of the file that the engine loads.
        peak_mib: peak memory of the processes that ran it at the same time.
        latency: of the timed runs.
        scenario: how runs followed each other.
        processes: how many processes, or sets of streams, ran it one after the other.
        streams: processes that ran at the same time.
        rate: queries a second that arrived, where they arrive.
        waited: the part of the timed runs that its threads were ready and had no core.
        clock_mhz: lowest and highest clock of its core.
        vs_dense: speed-up over the dense twin on the same engine.
        vs_onnxruntime: speed-up over the dense twin on ONNX Runtime.
        vs_float: speed-up over the dense model in float32 on ONNX Runtime, where that is measured beside integers.
        agreement: None for a dense twin, whose weights are random.
        accuracy: top-1 through this engine, where it was asked for; None for a dense twin likewise.
        about: what the engine tells of itself.
        evidence: what its layers took and ran in, where it was asked for.
        blocks_ms: every timed run, one list a round; of several processes, such a list for each.
        blocks_s: what every block took in all, likewise.
    """

    model: str
    engine: str
    weights: str
    sparsity: float
    batch_size: int
    threads: int
    error: str | None = None
    hint: str = ""
    load_s: float | None = None
    compile_s: float | None = None
    first_ms: float | None = None
    file_mib: float | None = None
    peak_mib: float | None = None
    latency: Latency | None = None
    scenario: str = "single_stream"
    processes: int = 1
    streams: int = 1
    rate: float | None = None
    waited: float | None = None
    clock_mhz: tuple[float, ...] = ()
    vs_dense: SpeedUp | None = None
    vs_onnxruntime: SpeedUp | None = None
    vs_float: SpeedUp | None = None
    agreement: Agreement | None = None
    accuracy: Top1 | None = None
    about: dict[str, Any] = field(default_factory=dict)
    evidence: Evidence | None = None
    blocks_ms: list[Any] = field(default_factory=list)
    blocks_s: list[Any] = field(default_factory=list)


def document(
    kind: str, settings: dict[str, Any], hardware: dict[str, Any], rows: Sequence[Any], **more: Any
) -> dict[str, Any]:
    """The result as plain data, ready for JSON."""
    values = [dataclasses.asdict(row) for row in rows]
    return {"format": 1, "kind": kind, "settings": settings, "hardware": hardware, **more, "rows": values}


def write(path: Path, value: dict[str, Any]) -> None:
    """Write a result as JSON, whole or not at all; its folder is made.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write(path, json.dumps(value, indent=1))
