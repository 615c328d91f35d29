"""The suites of ``ovit-deploy bench`` that measure the pruner itself."""

from pathlib import Path
from typing import TYPE_CHECKING

from ovit_deploy.cli import bench_tables, render
from ovit_deploy.cli.bench_watch import machine, watching
from ovit_deploy.errors import OvitError

if TYPE_CHECKING:
    from ovit_deploy.bench.suite import PrunerMemorySuite, PrunerSuite


def bench_pruner(suite: "PrunerSuite", output: Path | None, *, json: bool) -> None:
    """The kernel, and the whole step if the suite has one, against their plain forms."""
    from dataclasses import asdict

    from ovit_deploy.bench import results
    from ovit_deploy.bench.pruner import measure_pruner
    from ovit_deploy.bench.pruning_step import measure_step

    before = machine()
    render.note(f"eliminating {suite.blocks:,} blocks of {suite.block_size}; the plain form takes its time")
    with watching() as watch:
        found = measure_pruner(suite, on_round=watch.on_round)
    step = None
    if suite.step:
        render.note(f"{suite.step.model}: the whole pruning step; the plain form takes its time")
        with watching() as watch:
            step = measure_step(suite, suite.step, on_round=watch.on_round)
    parts = {"summary": asdict(found.summary), "step": asdict(step) if step else None}
    result = results.document("pruner", suite.model_dump(), before, found.rows, **parts)
    path = output or Path("pruner.json")
    results.write(path, result)
    if json:
        render.as_json(result)
    else:
        bench_tables.show_pruner(found, suite)
        if step:
            bench_tables.show_step(step, suite)
        render.line(f"wrote {path}")


def bench_pruner_memory(suite: "PrunerMemorySuite", output: Path | None, *, json: bool) -> None:
    """Peak memory against the budgets of a suite."""
    from ovit_deploy.bench import results
    from ovit_deploy.bench.pruning_memory import measure_memory

    before = machine()
    render.note(f"{suite.step.model}: pruning once with each of {len(suite.budgets_gb)} budgets")
    with watching() as watch:
        rows = measure_memory(suite, on_round=watch.on_round)
    result = results.document("pruner_memory", suite.model_dump(), before, rows)
    path = output or Path("pruner_memory.json")
    results.write(path, result)
    if json:
        render.as_json(result)
    else:
        bench_tables.show_memory(rows, suite)
        render.line(f"wrote {path}")
    over = [row.budget / 1e9 for row in rows if not row.within]
    if over:
        raise OvitError(
            f"the budgets of {', '.join(f'{budget:g}' for budget in over)} GB did not hold", "report it with the JSON"
        )
