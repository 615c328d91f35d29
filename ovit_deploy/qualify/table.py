"""Rows of a qualification as cells of a table, for the terminal and for bench/README.md."""

from textwrap import shorten

from ovit_deploy.qualify import limits
from ovit_deploy.qualify.task import PRECISIONS, Precision, Row

COLUMNS = ("model", "family", "input", "M weights", "prunable", "zeros", "FP32 off by", "INT8 cosine", "remarks")
BRIEF = ("model", "family", "input", "zeros", "FP32 off by", "INT8 cosine", "")
SHORT = {"onnxruntime": "ort", "openvino": "ov", "deepsparse": "ds"}


def cells(row: Row) -> tuple[str, ...]:
    """One row; what was not reached is empty."""
    return (
        row.model,
        row.family or row.module or "",
        "x".join(map(str, row.input_size)) if row.input_size else "",
        f"{row.parameters / 1e6:.2f}" if row.parameters else "",
        f"{row.prunable / row.parameters:.0%}" if row.prunable and row.parameters else "",
        f"{row.sparsity:.1%}" if row.sparsity is not None else "",
        _parity(row, "fp32"),
        _parity(row, "int8"),
        "; ".join(remarks(row)),
    )


def brief(row: Row) -> tuple[str, ...]:
    """One row for the terminal: the worst of all engines; remarks go below the table."""
    model, family, size, _, _, zeros, *_ = cells(row)
    near = {kind: [found for where, found in row.parity.items() if where.endswith(kind)] for kind in PRECISIONS}
    off_by = max((found["max_abs_difference"] for found in near["fp32"]), default=None)
    cosine = min((found["cosine"] for found in near["int8"]), default=None)
    worst = ("" if off_by is None else f"{off_by:.0e}", "" if cosine is None else f"{cosine:.4f}")
    return model, family, size, zeros, *worst, "qualifies" if row.qualifies else "fails"


def _parity(row: Row, precision: Precision) -> str:
    """The worst of each engine's images: a difference of a logit, or the mean cosine."""
    assert precision in PRECISIONS
    found = []
    for engine, short in SHORT.items():
        if near := row.parity.get(f"{engine} {precision}"):
            found.append(
                f"{short} {near['max_abs_difference']:.0e}" if precision == "fp32" else f"{short} {near['cosine']:.4f}"
            )
    return ", ".join(found)


def remarks(row: Row) -> list[str]:
    """What went wrong, what an engine does not run or not fast, and what was gained."""
    return [
        *(f"{_short(stage)}: {shorten(limits.plainly(reason), 160)}" for stage, reason in row.failures.items()),
        *(f"{_short(where)}: {what}" for where, what in row.refused.items()),
        *(f"{_short(where)}: {part:.0%} of operators slow" for where, part in row.slow.items()),
        *(f"{_short(where)}: {gain['factor']:.2f}x" for where, gain in row.speed_up.items()),
    ]


def _short(where: str) -> str:
    """``deepsparse int8`` as ``ds INT8``; other stages as they are."""
    engine, _, precision = where.partition(" ")
    return f"{SHORT[engine]} {precision.upper()}" if engine in SHORT else where


def summary(rows: list[Row]) -> str:
    """How many qualify, of how many families: those that `families` knows, of others the modules of timm."""
    good = [row for row in rows if row.qualifies]
    families = {row.family for row in good if row.family}
    modules = {row.module for row in good if not row.family} - {row.module for row in good if row.family}
    return f"{len(good)} of {len(rows)} models qualify, of {len(families) + len(modules)} families"
