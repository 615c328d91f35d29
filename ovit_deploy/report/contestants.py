"""Rows of benchmarks with the accuracy that belongs to them: the points of accuracy against latency."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ovit_deploy.bench.statistics import median_interval, units
from ovit_deploy.report.gather import Gathered, Report

Interval = tuple[float, float]
USUAL = "single_stream"  # the scenario of results that do not say it


@dataclass(frozen=True)
class Accuracy:
    """Top-1 with its 95 % interval, and what it was measured on, in words."""

    top1: float
    interval95: Interval
    of: str


@dataclass(frozen=True)
class Contestant:
    """One variant of a run's model on one engine.

    Args:
        run: Letter of the run.
        case: Scenario, batch size and threads.
        machine: What it ran on; only what has the same case and machine can be compared.
        engine: With its options.
        weights: Which variant.
        dense: Whether it is the twin without zeros of a sparse model.
        median_ms: None if it failed.
        interval_ms: 95 % of the median; None with fewer than two blocks.
        images_per_s: Throughput.
        gain: Factor over the dense twin on the same engine with its interval and verdict, as ``bench`` wrote it.
        accuracy: None if nobody measured it.
        error: Why there is no latency.
    """

    run: str
    case: str
    machine: str
    engine: str
    weights: str
    dense: bool
    median_ms: float | None
    interval_ms: Interval | None
    images_per_s: float | None
    gain: dict[str, Any] | None
    accuracy: Accuracy | None
    error: str | None


def contestants(report: Report) -> list[Contestant]:
    """All rows of all runs."""
    return [one for run in report.runs for one in _of_run(run)]


def _of_run(run: Gathered) -> Iterator[Contestant]:
    for bench in run.benches:
        for row in bench.get("rows", ()):
            latency = row.get("latency") or {}
            yield Contestant(
                run=run.letter,
                case=case(row),
                machine=machine(bench),
                engine=row["engine"],
                weights=row["weights"],
                dense=_is_twin(row, run),
                median_ms=latency.get("median_ms"),
                interval_ms=median_interval(units(row.get("blocks_ms") or [])) if latency else None,
                images_per_s=latency.get("images_per_s"),
                gain=row.get("vs_dense"),
                accuracy=accuracy_of(row, run),
                error=row.get("error"),
            )


def case(row: dict[str, Any]) -> str:
    """What two rows of a benchmark must have in common to be compared."""
    threads = f"{row['threads']} thread{'s' if row['threads'] != 1 else ''}"
    scenario = "" if row.get("scenario", USUAL) == USUAL else f"{row['scenario']}, "
    return f"{scenario}batch {row['batch_size']}, {threads}"


def machine(bench: dict[str, Any]) -> str:
    """What a benchmark ran on, in words."""
    hardware = bench.get("hardware", {})
    cores = f"{hardware.get('usable_cores', '?')} cores"
    return ", ".join([hardware.get("cpu", "an unknown machine"), cores, *hardware.get("instructions", ())])


def accuracy_of(row: dict[str, Any], run: Gathered) -> Accuracy | None:
    """Through that engine if it was measured so; else the run's own, where the row has the run's weights.

    A dense twin has random values where the zeros were: it is as fast as the dense model, whose accuracy this is.
    INT8 by ``export --quantize`` is another model than the run's: its accuracy is known through an engine only.
    """
    measured = row.get("accuracy")
    if isinstance(measured, dict) and "top1" in measured and "interval95" in measured:
        return _accuracy(measured, f"this file on this engine{_compared(measured)}")
    quantized = bool(run.facts.get("quantization"))
    if run.card and "post_training" in run.card.get("run", {}):
        return None
    if _is_twin(row, run):
        dense = run.facts.get("dense")
        return _accuracy(dense, "the dense model in PyTorch") if dense and not quantized else None
    final = run.facts.get("final")
    return _accuracy(final, "the run's model in PyTorch") if final else None


def _compared(measured: dict[str, Any]) -> str:
    """How it differs from the baseline's answers to the same images, where it was compared."""
    if measured.get("p_value") is None:
        return ""
    only = f"{measured['only_here']} images right only here, {measured['only_baseline']} only there"
    return f"; against {measured['baseline']}: {only}, McNemar p {measured['p_value']:.2g}"


def _accuracy(facts: dict[str, Any], of: str) -> Accuracy:
    low, high = facts["interval95"]
    return Accuracy(facts["top1"], (low, high), of)


def _is_twin(row: dict[str, Any], run: Gathered) -> bool:
    return not row.get("sparsity") and bool(run.facts.get("prunings"))
