"""What ran in which form, as the engines tell it, and on which machines with which versions."""

from collections.abc import Iterator, Mapping
from typing import Any

from ovit_deploy.report import flatten
from ovit_deploy.report.blocks import Block, Table, Text
from ovit_deploy.report.contestants import case
from ovit_deploy.report.gather import Gathered, Report

_TOLD = ("about", "evidence")  # keys of a benchmark's row: the engine of itself, and what was found out about the run


def evidence(report: Report) -> Iterator[Block]:
    """What proves the exported file, then what each engine says of how it ran it."""
    exported = [run for run in report.runs if run.card]
    if exported:
        columns = ("run", "profile", "images", "largest difference", "same top-1", "zeros in the file", "sha256")
        yield Table(columns, [_file(run, run.card or {}) for run in exported], title="the exported file against torch")
    rows = [(run, row) for run in report.runs for bench in run.benches for row in bench.get("rows", ())]
    if not rows:
        yield Text("No engine has run these models yet.")
        return
    columns = ("run", "case", "engine", "weights", "off by", "what the engine tells")
    yield Table(columns, [_engine(run, row) for run, row in rows], title="the engines")
    yield Text(
        "off by: the largest difference of a logit from ONNX Runtime's on the same file and images; a dense twin has "
        "random weights, its logits are not compared."
    )
    for run, row in rows:
        told = {key: row[key] for key in _TOLD if key in row}
        for name, records in flatten.records(told):
            title = f"{run.letter}, {row['engine']}, {row['weights']}, {case(row)}: {name} ({len(records)})"
            yield Table(*flatten.table(records), title=title, folded=True)


def _file(run: Gathered, card: Mapping[str, Any]) -> list[str]:
    proof = card["verification"]
    return [
        run.letter,
        card["profile"]["name"],
        str(proof["num_images"]),
        f"{proof['max_abs_difference']:.1e}",
        f"{proof['top1_agreement']:.1%}",
        f"{card['sparsity']['all']:.2%}",
        card["sha256"],
    ]


def _engine(run: Gathered, row: Mapping[str, Any]) -> list[str]:
    agreement = row.get("agreement")
    off = f"{agreement['max_abs_difference']:.1g}" if agreement else "-"
    told = [pair for key in _TOLD for pair in flatten.pairs(row.get(key) or {})]
    words = "; ".join(f"{name}: {value}" for name, value in told)
    return [run.letter, case(dict(row)), row["engine"], row["weights"], off, words or row.get("error") or "-"]


def environment(report: Report) -> Iterator[Block]:
    """Machines and versions, a column for each that differs from the others."""
    columns: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in report.runs:
        columns.setdefault(tuple(_facts(run)), []).append(run.letter)
    keys = list(dict.fromkeys(key for facts in columns for key, _ in facts))
    rows = [[key, *(dict(facts).get(key, "-") for facts in columns)] for key in keys]
    yield Table(("", *(", ".join(letters) for letters in columns.values())), rows)


def _facts(run: Gathered) -> Iterator[tuple[str, str]]:
    made = {key: run.facts[key] for key in ("created", "machine", "versions") if key in run.facts}
    yield from flatten.pairs(made, run.verb)
    if run.card:
        yield from flatten.pairs({key: run.card[key] for key in ("created", "versions") if key in run.card}, "export")
    for number, bench in enumerate(run.benches):
        yield from flatten.pairs(bench.get("hardware", {}), f"bench {number + 1}" if number else "bench")
