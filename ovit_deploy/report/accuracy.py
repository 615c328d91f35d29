"""Accuracy against latency: a picture and a table for each case, on each machine."""

from collections.abc import Iterator, Sequence
from typing import Any

from ovit_deploy.bench import hardware
from ovit_deploy.drawing import marks
from ovit_deploy.report import commands, plots
from ovit_deploy.report.blocks import Block, Cell, Picture, Remark, Table, Text
from ovit_deploy.report.contestants import Contestant, contestants
from ovit_deploy.report.gather import Report

NONE = "-"


def accuracy_against_latency(report: Report) -> Iterator[Block]:
    """All contestants of all runs; those that ran on different machines do not share a picture."""
    found = contestants(report)
    if not found:
        yield Text("None of these runs was measured on an engine.")
        return
    look = plots.looks(found)
    for case, machine in dict.fromkeys((one.case, one.machine) for one in found):
        own = [one for one in found if (one.case, one.machine) == (case, machine)]
        drawn = plots.accuracy_against_latency(own, look, case, machine)
        if drawn:
            yield Picture(drawn, f"Top-1 over median latency: {case}")
        yield Table(_COLUMNS, [_contestant(one, look) for one in own], title=f"{case}, on {machine}")
    yield from _busy(report)
    yield Text(
        "Intervals are of 95 %: Wilson's for top-1, for latency a bootstrap over blocks of runs, which does not hold "
        "what differs from one start of a process, or one day, to the next. Hollow: the dense twin, the same graph "
        "with its zeros filled by random values; its latency is the dense model's, and so is the top-1 beside it."
    )


def _busy(report: Report) -> Iterator[Block]:
    """A remark for each benchmark that ran beside other work."""
    for run in report.runs:
        for bench in run.benches:
            machine = bench.get("hardware", {})
            if machine.get("load_average") and machine.get("usable_cores") and hardware.is_busy(machine):
                load = f"load {machine['load_average'][0]:.1f} on {machine['usable_cores']} cores"
                told = (
                    f"{run.letter} ({run.name}): measured beside other work ({load}), so times may be long and unsteady"
                )
                yield Remark(told, "\n".join(commands.bench(run, bench.get("settings", {}))))


_COLUMNS = (
    "",
    "run",
    "engine",
    "weights",
    "median ms",
    "95 % interval",
    "images/s",
    "against dense twin",
    "verdict",
    "top-1, %",
    "95 % interval",
    "top-1 of",
)


def _contestant(one: Contestant, look: plots.Marks) -> list[Cell]:
    form, colour = look[one.engine, one.run]
    told = f"{one.engine}, {one.weights}"
    sign: Cell = Picture(marks.legend(form, colour, told, hollow=one.dense), "") if one.accuracy else ""
    known = one.accuracy
    times = [
        _digits(one.median_ms),
        f"{_digits(one.interval_ms[0])} to {_digits(one.interval_ms[1])}" if one.interval_ms else NONE,
        _digits(one.images_per_s),
        _gain(one.gain),
        (one.gain or {}).get("verdict", NONE),
    ]
    if one.error:
        times = [f"failed: {one.error}", *[NONE] * 4]
    accuracy = [f"{100 * known.top1:.2f}", percents(known.interval95), known.of] if known else [NONE] * 3
    return [sign, one.run, one.engine, one.weights, *times, *accuracy]


def _gain(gain: dict[str, Any] | None) -> str:
    if not gain:
        return NONE
    return f"{gain['factor']:.2f}x ({gain['low']:.2f} to {gain['high']:.2f})"


def percents(interval: Sequence[float]) -> str:
    """An interval of fractions, in per cent."""
    return f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"


def _digits(figure: float | None) -> str:
    if figure is None:
        return NONE
    return f"{figure:.{2 if figure < 10 else 1 if figure < 1000 else 0}f}"
