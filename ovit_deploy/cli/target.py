"""``ovit-deploy prune --target-latency``: the sparsities that reach a time, the run, and what its export then takes."""

import re
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ovit_deploy import checkpoint, models
from ovit_deploy.cli import bench_tables, common, lists, render
from ovit_deploy.cli.beginning import Beginning
from ovit_deploy.cli.export import export
from ovit_deploy.engines.selection import Selection
from ovit_deploy.errors import EngineError, OvitError

if TYPE_CHECKING:
    from ovit_deploy.bench.results import Row
    from ovit_deploy.explain.parts import Thinning
    from ovit_deploy.explain.target import Aim, Goal

_UNITS = {"": 1.0, "ms": 1.0, "s": 1000.0, "us": 0.001}
_DURATION_S = 5.0


def goal_of(latency: str, engine: str, sparsities: str | None) -> "Goal":
    """What ``--target-latency``, ``--engine`` and ``--levels`` ask for."""
    from ovit_deploy.explain.target import SPARSITIES, Goal

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|us|s|)", latency.strip())
    if found is None or float(found[1]) == 0:
        raise OvitError(f"--target-latency {latency}: not a time", "for example 12ms or 0.5s")
    try:
        selection = str(Selection.parse(engine))
    except ValueError as error:
        raise EngineError(f"--engine: {error}", "ovit-deploy engines") from None
    levels = lists.sparsities(sparsities, "--levels") if sparsities else SPARSITIES
    return Goal(selection, float(found[1]) * _UNITS[found[2]], levels)


def prune_to(goal: "Goal", asked: Beginning, *, batch_size: int, threads: int, dry_run: bool, json: bool) -> None:
    """Choose, prune by the choice, export, and measure what was reached."""
    with redirect_stdout(sys.stderr) if json else nullcontext():  # stdout is for the JSON then
        told = _prune_to(goal, asked, batch_size=batch_size, threads=threads, dry_run=dry_run)
    if json:
        render.as_json(told)


def _prune_to(goal: "Goal", asked: Beginning, *, batch_size: int, threads: int, dry_run: bool) -> dict[str, Any]:
    from ovit_deploy.bench import hardware, results
    from ovit_deploy.explain.parts import thins

    hardware.require_cores(threads)
    machine = hardware.describe()
    if hardware.is_busy(machine):
        render.warning(f"{bench_tables.load(machine)}: latencies will be too long; end other work first")
    if thins(asked.recipe):
        return _thin_to(goal, asked, machine, batch_size=batch_size, threads=threads, dry_run=dry_run)
    found = _aim(goal, asked, batch_size=batch_size, threads=threads)
    show_plan(found, goal)
    told = _document(found, goal, machine, batch_size=batch_size, threads=threads)
    if dry_run:
        return told
    finished = common.carry_out(replace(asked, recipe=found.recipe), json=False)
    export(run=str(finished.folder), data=asked.data)
    sparse, dense = _measured(finished.folder, goal.engine, batch_size=batch_size, threads=threads)
    told |= {"measured": {"sparse": asdict(sparse), "dense": asdict(dense)}}
    results.write(finished.folder / "latency.json", told)
    _draw(finished.folder, found, goal, sparse)
    _tell(found, goal, finished.folder, sparse, dense)
    return told


def _thin_to(
    goal: "Goal", asked: Beginning, machine: dict[str, Any], *, batch_size: int, threads: int, dry_run: bool
) -> dict[str, Any]:
    """The same where parts are removed: their measured times are the prices of the recipe's own choice."""
    from ovit_deploy.bench import results
    from ovit_deploy.data import load_data
    from ovit_deploy.explain import parts
    from ovit_deploy.structure import structure_of

    data = load_data(asked.data)
    choice = models.completed(asked.choice, classes=data.classes, channels=data.channels)
    with TemporaryDirectory(prefix="ovit-target-") as folder:
        bench = _bench(choice, Path(folder), batch_size=batch_size, threads=threads)
        latency = parts.latency_of_parts(bench, parts.form_of(asked.recipe, goal.engine))
    found = parts.thinned_to(asked.recipe, latency, bench.workshop.model, goal.target_ms)
    _show_parts(found)
    told = {"format": 1, "kind": "target_latency_of_parts", "goal": asdict(goal), "hardware": machine}
    told |= {"latency": latency.model_dump(), "dense_ms": found.dense_ms}
    if dry_run:
        return told
    finished = common.carry_out(replace(asked, recipe=found.recipe), json=False)
    export(run=str(finished.folder), data=asked.data)
    thinned, _ = _measured(finished.folder, goal.engine, batch_size=batch_size, threads=threads)
    thin = models.outline(models.choose(None, checkpoint=finished.folder / "model.safetensors", pretrained=False).spec)
    told |= {"structure": structure_of(thin).as_dict(), "predicted_ms": parts.predicted_ms(latency, thin)}
    told |= {"measured": asdict(thinned)}
    results.write(finished.folder / "latency.json", told)
    assert thinned.latency
    render.line(
        f"target {goal.target_ms:g} ms: {_reached(thinned.latency.median_ms, goal)}; measured "
        f"{thinned.latency.median_ms:.4g} ms, predicted {told['predicted_ms']:.4g} ms (whole {found.dense_ms:.4g})"
    )
    render.line(f"wrote {finished.folder}/latency.json")
    return told


def _show_parts(found: "Thinning") -> None:
    """What parts take."""
    latency = found.latency
    rows = [
        *(("heads", str(count), f"{ms:.4g}") for count, ms in latency.heads_ms.items()),
        *(("width", str(count), f"{ms:.4g}") for count, ms in latency.width_ms.items()),
        ("block, besides", "", f"{latency.block_ms:.4g}"),
        ("outside blocks", "", f"{latency.rest_ms:.4g}"),
    ]
    render.table(f"ms on {latency.engine}, {found.dense_ms:.4g} for the model", ("part", "how many", "ms"), rows)


def _reached(got_ms: float, goal: "Goal") -> str:
    return "reached" if got_ms <= goal.target_ms else f"missed by {got_ms / goal.target_ms - 1:.1%}"


def _aim(goal: "Goal", asked: Beginning, *, batch_size: int, threads: int) -> "Aim":
    """Measure what layers save, take gradients, choose."""
    from ovit_deploy import device
    from ovit_deploy.data import load_data
    from ovit_deploy.explain.table import latency_table
    from ovit_deploy.explain.target import aim, measurable

    data = load_data(asked.data)
    choice = models.completed(asked.choice, classes=data.classes, channels=data.channels)
    form, pattern = measurable(asked.recipe, goal, models.shapes(choice))
    with TemporaryDirectory(prefix="ovit-target-") as folder:
        bench = _bench(choice, Path(folder), batch_size=batch_size, threads=threads)
        table = latency_table(bench, form, pattern=pattern, sparsities=goal.sparsities)
    budget, where = asked.memory_budget, device.choose(asked.device)
    return aim(asked.recipe, choice, data, table, goal, memory_budget=budget, device=where, report=render.note)


def _bench(choice: models.Choice, folder: Path, *, batch_size: int, threads: int) -> Any:
    from ovit_deploy.bench.latency import Watch
    from ovit_deploy.explain.pieces import Workshop
    from ovit_deploy.explain.session import Bench, Settings

    network = models.build(replace(choice, weights=None, pretrained=False))
    workshop = Workshop(network, folder, batch_size=batch_size, seed=0)
    return Bench(workshop, Settings(threads), Watch(render.note))


def show_plan(found: "Aim", goal: "Goal") -> None:
    """What was chosen, a row for each layer of blocks over all blocks."""
    plan = found.plan
    layers: dict[str, list[float]] = {}
    for name, sparsity in plan.sparsities.items():
        layers.setdefault(re.sub(r"^blocks\.\d+\.(.*)\.weight$", r"\1", name), []).append(sparsity)
    rows = [(layer, *(f"{100 * sparsity:g}" for sparsity in own)) for layer, own in layers.items()]
    width = max(map(len, layers.values()))
    rows = [(*row, *["-"] * (width + 1 - len(row))) for row in rows]
    title = f"zeros by block, %, for {goal.target_ms:g} ms on {goal.engine}"
    render.table(title, ("layer", *(str(number) for number in range(width))), rows)
    render.line(
        f"predicted: {plan.ms:.4g} ms ({found.table.dense_ms:.4g} ms dense), loss {plan.loss:+.2g}; "
        f"the fastest possible: {found.front[0].ms:.4g} ms, loss {found.front[0].loss:+.2g}"
    )


def _measured(folder: Path, engine: str, *, batch_size: int, threads: int) -> "tuple[Row, Row]":
    """The exported model and its dense twin on the engine, in turns."""
    from ovit_deploy.bench import source
    from ovit_deploy.bench.latency import Settings, Watch, measure_latency
    from ovit_deploy.bench.subject import prepare

    with TemporaryDirectory(prefix="ovit-target-") as scratch:
        subject = prepare(source.from_run(str(folder)), batch_size=batch_size, seed=0, folder=Path(scratch))
        settings = Settings((engine,), threads, _DURATION_S)
        rows = measure_latency(subject, settings, Watch(render.note))
    for row in rows:
        if row.error:
            raise EngineError(row.error, row.hint)
    return rows[0], rows[-1]


def _document(found: "Aim", goal: "Goal", machine: dict[str, Any], *, batch_size: int, threads: int) -> dict[str, Any]:
    """Table, choice and front as plain data."""
    return {
        "format": 1,
        "kind": "target_latency",
        "goal": asdict(goal),
        "batch_size": batch_size,
        "threads": threads,
        "hardware": machine,
        "table": {
            "dense_ms": found.table.dense_ms,
            "saved_ms": {name: {f"{s:g}": ms for s, ms in own.items()} for name, own in found.table.saved_ms.items()},
        },
        "options": {name: [asdict(option) for option in own] for name, own in found.options.items()},
        "plan": asdict(found.plan),
        "front": [asdict(plan) for plan in found.front],
    }


def _draw(folder: Path, found: "Aim", goal: "Goal", sparse: "Row") -> None:
    from ovit_deploy.explain.picture import figure

    assert sparse.latency
    title = f"{folder.name} on {goal.engine}, batch {sparse.batch_size}, {sparse.threads} thread(s)"
    picture = figure(found.front, found.plan, goal.target_ms, title, sparse.latency.median_ms)
    checkpoint.write(folder / "latency.svg", picture)


def _tell(found: "Aim", goal: "Goal", folder: Path, sparse: "Row", dense: "Row") -> None:
    """Target, prediction and what was measured."""
    assert sparse.latency and dense.latency
    got = sparse.latency.median_ms
    render.line(
        f"target {goal.target_ms:g} ms: {_reached(got, goal)}; measured {got:.4g} ms "
        f"(dense {dense.latency.median_ms:.4g}), predicted {found.plan.ms:.4g} ms (dense {found.table.dense_ms:.4g})"
    )
    render.line(f"wrote {folder}/latency.json and {folder}/latency.svg")
    render.next_command(f"ovit-deploy bench --run {folder.name} --engine {goal.engine}")
