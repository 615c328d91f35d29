"""The fastest of the others, in the same turns: who dense is fastest in any precision, and what DeepSparse makes of it.

A ratio to the dense model in float32 alone flatters integers, and one to the twin flatters who is slow without zeros.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def fastest_dense(rows: Sequence[Row]) -> Row | None:
    """Of the rows without zeros the one with the lowest median, in whatever precision and on whatever engine.

    Args:
        rows: of one batch size and number of threads, as a result's file has them; those that failed are passed over.
    """
    return _fastest([row for row in rows if not row["sparsity"]])


def fastest_deepsparse(rows: Sequence[Row], sparsity: float) -> Row | None:
    """DeepSparse at its best with as many zeros, in whatever precision; None where it did not run."""
    return _fastest([row for row in rows if row["engine"] == "deepsparse" and row["sparsity"] == sparsity])


def times_as_fast(row: Row, rival: Row | None) -> float | None:
    """How many times as fast a row is as its rival, by medians; None where there is none, or the row failed."""
    if rival is None or not row["latency"]:
        return None
    return rival["latency"]["median_ms"] / row["latency"]["median_ms"]


def _fastest(rows: Sequence[Row]) -> Row | None:
    timed = [row for row in rows if row["latency"]]
    return min(timed, key=lambda row: row["latency"]["median_ms"], default=None)
