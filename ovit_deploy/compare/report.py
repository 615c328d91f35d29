"""Results as plain data for JSON, and as the rows of tables. No path of a machine gets in."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ovit_deploy.compare.cells import DENSE, Cell
from ovit_deploy.compare.study import Failure


def document(
    kind: str, about: Mapping[str, Any], hardware: Mapping[str, Any], command: str, **results: Any
) -> dict[str, Any]:
    """A result as plain data: what was looked at, on which machine, by which command, and what came of it."""
    return {
        "format": 1,
        "kind": kind,
        "subject": dict(about),
        "hardware": dict(hardware),
        "command": command,
        **results,
    }


def as_text(value: Mapping[str, Any]) -> str:
    """A result as the text of a JSON file."""
    return json.dumps(value, indent=1) + "\n"


def failures_as_dicts(failures: Sequence[Failure]) -> list[dict[str, Any]]:
    """For JSON."""
    return [vars(failure) for failure in failures]


def accuracy_rows(cells: Sequence[Cell]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Columns and rows of top-1 in per cent, a method a row and a sparsity a column; the best of each has a star."""
    sparsities = sorted({cell.sparsity for cell in cells if cell.method != DENSE})
    best = {s: max(cell.top1 for cell in cells if cell.method != DENSE and cell.sparsity == s) for s in sparsities}
    by_place = {(cell.method, cell.sparsity): cell for cell in cells}
    rows: list[tuple[str, ...]] = []
    for method in dict.fromkeys(cell.method for cell in cells):
        if method == DENSE:
            rows.append((DENSE, *[f"{100 * by_place[DENSE, 0.0].top1:.2f}"] * len(sparsities)))
            continue
        found = [by_place.get((method, s)) for s in sparsities]
        rows.append((method, *(_star(cell, best) if cell else "-" for cell in found)))
    return ["top-1, %", *(f"{sparsity:.4g}" for sparsity in sparsities)], rows


def _star(cell: Cell, best: Mapping[float, float]) -> str:
    return f"{100 * cell.top1:.2f}" + ("*" if cell.top1 == best[cell.sparsity] else "")


COLUMNS = ("method", "zeros", "top-1, %", "95 %", "predicted", "measured", "s", "MiB")


def cell_row(cell: Cell) -> tuple[str, ...]:
    """A cell under `COLUMNS`: interval of top-1, increases of the loss, seconds and peak memory."""
    low, high = cell.interval95
    return (
        cell.method,
        f"{cell.zeros:.0%}" if abs(100 * cell.zeros % 1) < 1e-3 else f"{cell.zeros:.2%}",
        f"{100 * cell.top1:.2f}",
        f"{100 * low:.2f}-{100 * high:.2f}",
        "-" if cell.predicted_loss is None else f"{cell.predicted_loss:+.2g}",
        f"{cell.measured_loss:+.2g}",
        f"{cell.seconds:.1f}",
        f"{cell.peak_bytes / 2**20:.0f}" if cell.peak_bytes else "-",
    )
