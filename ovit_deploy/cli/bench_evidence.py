"""How the evidence of ``bench --evidence`` looks: where the time goes, and which kernels did the work."""

from typing import TYPE_CHECKING

from ovit_deploy.cli import render

if TYPE_CHECKING:
    from ovit_deploy.bench.results import Row

SPLIT = ("engine", "weights", "pruned layers ms", "rest ms", "share", "at most", "their kernels")


def show(rows: "list[Row]") -> None:
    """Where the time goes on every engine, by its own profiler; every layer is in the JSON file."""
    told = [row for row in rows if row.evidence]
    render.table(
        "where the time goes (profiled runs, slower than the timed ones)", SPLIT, [_split(row) for row in told]
    )
    render.line("at most: the speed-up if the pruned layers cost nothing (Amdahl); every layer is in the JSON file")
    for row in told:
        if row.evidence and row.evidence.of_peak:
            shares = ", ".join(f"{kernel} {share:.0%}" for kernel, share in row.evidence.of_peak.items())
            render.line(f"{row.engine}, {row.weights}, of the processor's arithmetic peak: {shares}")
    render.line()


def _split(row: "Row") -> tuple[str, ...]:
    found = row.evidence
    assert found
    if found.error:
        return row.engine, row.weights, "-", "-", "-", "-", found.error
    times = (f"{found.pruned_ms:.2f}", f"{found.rest_ms:.2f}", f"{found.share:.0%}", f"{found.ceiling:.1f}x")
    kernels = ", ".join(f"{count} {name}" for name, count in found.kernels.items())
    return row.engine, row.weights, *times, kernels or "none found"
