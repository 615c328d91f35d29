"""Everything there is to tell of runs, section by section. Numbers in words are made here and nowhere else."""

import math
from collections.abc import Iterator
from typing import Any

from ovit_deploy.recipe import Recipe, picture, planning
from ovit_deploy.report import commands, plots
from ovit_deploy.report.accuracy import accuracy_against_latency, percents
from ovit_deploy.report.blocks import Block, Cell, Code, Picture, Remark, Section, Table, Text
from ovit_deploy.report.evidence import environment, evidence, noise
from ovit_deploy.report.gather import Gathered, Report

NONE = "-"


def sections(report: Report) -> list[Section]:
    """All of them, in the order of the page; each says so where there is nothing to show."""
    return [
        Section("Runs", list(_summary(report))),
        Section("Accuracy against latency", list(accuracy_against_latency(report))),
        Section("Sparsity per layer", list(_sparsity(report))),
        Section("Schedule", list(_schedules(report))),
        Section("Prunings", list(_prunings(report))),
        Section("Evidence", list(evidence(report))),
        Section("Environment", [*environment(report), *noise(report)]),
        Section("Reproduce", list(_reproduce(report))),
    ]


def _summary(report: Report) -> Iterator[Block]:
    columns = ("run", "name", "model", "data", "zeros", "dense top-1, %", "top-1, %", "95 % interval", "images", "s")
    yield Table(columns, [_run(run) for run in report.runs])
    yield Text(
        "zeros: of the prunable weights. Top-1 is of the run's model on its test images, with Wilson's 95 % interval; "
        "dense: the same model before. s: seconds of the run, training and pruning."
    )
    for run in report.runs:
        yield from (Remark(f"{run.letter} ({run.name}): {lack.what}", lack.command) for lack in run.missing)


def _run(run: Gathered) -> list[Cell]:
    facts, zeros = run.facts, run.facts["sparsity"]["prunable"]
    dense, final = facts.get("dense"), facts.get("final")
    form = "INT8" if facts.get("quantization") else "float32"
    return [
        run.letter,
        run.name,
        f"{facts['model']['name']}, {facts['model']['parameters'] / 1e6:.3g} M, {form}",
        str(facts.get("data", NONE)),
        f"{zeros:.2%}",
        f"{100 * dense['top1']:.2f}" if dense else NONE,
        f"{100 * final['top1']:.2f}" if final else NONE,
        percents(final["interval95"]) if final else NONE,
        f"{final['images']:,}" if final else NONE,
        f"{facts['seconds']:.0f}" if "seconds" in facts else NONE,
    ]


def _sparsity(report: Report) -> Iterator[Block]:
    pruned = [run for run in report.runs if run.facts["sparsity"]["layers"]]
    if not pruned:
        yield Text("No layer of these runs is pruned.")
        return
    names = list(dict.fromkeys(name for run in pruned for name in run.facts["sparsity"]["layers"]))
    layers = {name: [run.facts["sparsity"]["layers"].get(name, math.nan) for run in pruned] for name in names}
    if len(pruned) == 1:
        title = f"{pruned[0].letter}: zeros of each pruned layer"
        yield Picture(plots.sparsity_bars({name: own[0] for name, own in layers.items()}, title), title)
    else:
        title = "Zeros of each pruned layer, by run"
        yield Picture(plots.sparsity_heatmap(layers, [run.letter for run in pruned], title), title)
    rows = [[name, *(NONE if math.isnan(value) else f"{value:.2%}" for value in own)] for name, own in layers.items()]
    yield Table(("layer", *(run.letter for run in pruned)), rows, title="the same as a table", folded=True)


def _schedules(report: Report) -> Iterator[Block]:
    for run in report.runs:
        if run.recipe is None or run.plan is None:
            yield Text(f"{run.letter} ({run.name}): its recipe cannot be read by this version.")
        elif not run.plan.num_epochs:
            yield Text(f"{run.letter} ({run.name}): one-shot, all at epoch 0; nothing is trained.")
        else:
            title = f"{run.letter}: {run.facts.get('recipe', run.name)}, as planned"
            yield Picture(picture.figure(run.plan, title), title)
            yield _events(run.recipe, title)
        if run.epochs and run.epochs[-1]["epoch"]:
            title = f"{run.letter}: training as it went"
            yield Picture(plots.training(run.epochs, title), title)
            yield _epochs(run, title)


def _events(recipe: Recipe, title: str) -> Table:
    columns = ("epoch", "action", "what", "learning rate")
    rows = [[f"{e.epoch:g}", e.action, e.what, f"{e.learning_rate:.3g}"] for e in planning.events(recipe)]
    return Table(columns, rows, title=f"{title}: every event", folded=True)


def _epochs(run: Gathered, title: str) -> Table:
    columns = ("epoch", "loss", "training top-1, %", "zeros", "learning rate", "s")
    rows = [
        [
            f"{line['epoch']:g}",
            f"{line['loss']:.4f}",
            f"{100 * line['train_top1']:.2f}",
            f"{line['sparsity']:.2%}",
            f"{line['learning_rate']:.3g}",
            f"{line['seconds']:.1f}",
        ]
        for line in run.epochs
    ]
    return Table(columns, rows, title=f"{title}: every epoch", folded=True)


def _prunings(report: Report) -> Iterator[Block]:
    if not any(run.facts.get("prunings") for run in report.runs):
        yield Text("Nothing was pruned.")
        return
    for run in report.runs:
        drawn = plots.prunings(run.facts.get("prunings", []), f"{run.letter}: what pruning did to the loss")
        if drawn:
            yield Picture(drawn, f"{run.letter}: predicted and measured increase of the loss at every pruning")
    columns = ("run", "method", "epoch", "zeros", "predicted loss", "measured loss", "s")
    rows = [_pruning(run.letter, line) for run in report.runs for line in run.facts.get("prunings", [])]
    yield (
        Table(columns, rows, title=f"all {len(rows)} of them", folded=True) if len(rows) > 30 else Table(columns, rows)
    )
    yield Text(
        "Increases of the mean loss (nats) on the calibration images, which are training images, right after pruning. "
        "Methods without a model of the loss predict none."
    )


def _pruning(letter: str, line: dict[str, Any]) -> list[str]:
    losses = (line.get("predicted_loss_increase"), line.get("measured_loss_increase"))
    told = [NONE if loss is None else f"{loss:+.2g}" for loss in losses]
    method = line["method"] if line["event"] == "prune" else f"{line['method']}, {line['event']}"
    return [letter, method, f"{line['epoch']:g}", f"{line['sparsity']:.2%}", *told, f"{line['seconds']:.1f}"]


def _reproduce(report: Report) -> Iterator[Block]:
    for run in report.runs:
        yield Text(f"{run.letter} ({run.name}), seed {run.facts.get('seed', NONE)}:")
        yield Code("\n".join(commands.reproduce(run)))
        needed = commands.recipe_file(run)
        yield Code(run.recipe_text, title=needed if needed else f"the recipe, {run.facts.get('recipe', run.name)}")
    names = " ".join(run.name for run in report.runs)
    yield Text("This page:")
    yield Code(f"ovit-deploy report {names}")
