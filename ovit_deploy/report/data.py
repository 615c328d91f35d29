"""A report as plain data: everything that was gathered, but the single timed runs of benchmarks."""

from dataclasses import asdict
from typing import Any

from ovit_deploy.report.commands import reproduce
from ovit_deploy.report.contestants import contestants
from ovit_deploy.report.gather import Gathered, Report

FORMAT = 1


def as_data(report: Report) -> dict[str, Any]:
    """Ready for JSON."""
    return {
        "format": FORMAT,
        "kind": "report",
        "created": report.created,
        "runs": [_run(run) for run in report.runs],
        "contestants": [asdict(one) for one in contestants(report)],
    }


def _run(run: Gathered) -> dict[str, Any]:
    return {
        "run": run.letter,
        "name": run.name,
        "facts": run.facts,
        "recipe": run.recipe_text,
        "metrics": list(run.metrics),
        "export": run.card,
        "benches": [bench | {"rows": [_row(row) for row in bench.get("rows", ())]} for bench in run.benches],
        "missing": [asdict(lack) for lack in run.missing],
        "commands": reproduce(run),
    }


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "blocks_ms"}
