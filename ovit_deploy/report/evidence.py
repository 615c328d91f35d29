"""What ran in which form, as the engines tell it, and on which machines with which versions."""

from collections.abc import Iterator, Mapping
from typing import Any

from ovit_deploy.report import flatten
from ovit_deploy.report.blocks import Block, Table, Text
from ovit_deploy.report.contestants import case
from ovit_deploy.report.gather import Gathered, Report

_TOLD = ("about", "evidence")  # keys of a benchmark's row: the engine of itself, and what its profiler told


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
    profiled = [(run, row) for run, row in rows if row.get("evidence")]
    if profiled:
        columns = ("run", "case", "engine", "weights", "pruned layers ms", "rest ms", "share", "at most", "kernels")
        yield Table(columns, [_split(run, row) for run, row in profiled], title="where the time goes")
        yield Text(
            "By the profiler of each engine: layers with pruned weights (and what is fused into them), and the rest. "
            "At most: how many times as fast the model would be if the pruned layers cost nothing (Amdahl)."
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
    told = flatten.pairs(row.get("about") or {})
    words = "; ".join(f"{name}: {value}" for name, value in told)
    return [run.letter, case(dict(row)), row["engine"], row["weights"], off, words or row.get("error") or "-"]


def _split(run: Gathered, row: Mapping[str, Any]) -> list[str]:
    found, who = row["evidence"], [run.letter, case(dict(row)), row["engine"], row["weights"]]
    pruned_ms, rest_ms = found.get("pruned_ms", 0.0), found.get("rest_ms", 0.0)
    if found.get("error") or not pruned_ms + rest_ms:
        return [*who, "-", "-", "-", "-", found.get("error") or "no layers"]
    kernels = ", ".join(f"{count} {name}" for name, count in found.get("kernels", {}).items())
    most = f"{(pruned_ms + rest_ms) / rest_ms:.2f}x" if rest_ms else "-"
    share = f"{pruned_ms / (pruned_ms + rest_ms):.0%}"
    return [*who, f"{pruned_ms:.3g}", f"{rest_ms:.3g}", share, most, kernels or "-"]


def noise(report: Report) -> Iterator[Block]:
    """How quiet the machine was while each benchmark ran."""
    found = [(run, bench["noise"]) for run in report.runs for bench in run.benches if bench.get("noise")]
    if not found:
        yield Text("Nobody looked how quiet the machine was.")
        return
    columns = ("run", *_DISTURBED.values(), "too noisy")
    rows = [
        [run.letter, *(_percent(told.get(key)) for key in _DISTURBED), "; ".join(told.get("reasons") or ()) or "no"]
        for run, told in found
    ]
    yield Table(columns, rows, title="how quiet the machine was")


_DISTURBED = {
    "busy": "cores busy before",
    "waited": "waiting for a core",
    "stolen": "stolen",
    "throttled": "throttled",
    "clock_spread": "clock changed",
}


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.0%}"


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
