"""How the results of ``bench`` look: tables for engines, one for each of the pruner's cases."""

from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovit_deploy.bench import rivals
from ovit_deploy.bench.verdict import MIN_UNITS, START_SPREAD
from ovit_deploy.cli import bench_evidence, render

if TYPE_CHECKING:
    from ovit_deploy.bench.against import Against, Match
    from ovit_deploy.bench.noise import Noise
    from ovit_deploy.bench.pruner import PrunerResult
    from ovit_deploy.bench.pruning_memory import MemoryRow
    from ovit_deploy.bench.pruning_step import StepResult
    from ovit_deploy.bench.results import Row
    from ovit_deploy.bench.suite import PrunerMemorySuite, PrunerSuite, PruningStep
    from ovit_deploy.bench.verdict import SpeedUp

TIMES = ("engine", "weights", "median", "p90", "p99", "images/s", "vs twin", "vs ORT twin")
STARTS = ("engine", "weights", "load s", "compile s", "first ms", "peak MiB", "file MiB")
LOGITS = ("engine", "weights", "off by", "same top-1", "ran in")
RIVALS = ("engine", "weights", "vs ORT FP32", "95 % interval", "vs DeepSparse", "vs fastest dense")
ANSWERS = ("engine", "weights", "top-1", "95 % interval", "images", "against", "only here / there", "McNemar p")


def show_latency(rows: "list[Row]", hardware: dict[str, Any], noise: "Noise") -> None:
    """Tables for every model, batch size and number of threads, and what their words mean."""
    for (model, batch_size, threads), group in groupby(rows, lambda row: (row.model, row.batch_size, row.threads)):
        part = list(group)
        title = f"{model}: batch {batch_size}, {threads} thread{'s' if threads > 1 else ''}{_scenario(part[0])}"
        render.table(f"{title}, latency in ms", TIMES, [_times(row) for row in part])
        render.line()
        if any(row.vs_float for row in part):
            _show_rivals(part)
        render.table("cold start and memory", STARTS, [_start(row) for row in part])
        render.line()
        render.table("logits against ONNX Runtime's", LOGITS, [_logits(row) for row in part])
        render.line()
        answered = [row for row in part if row.accuracy]
        if answered:
            render.table("top-1 through the engine", ANSWERS, [_answers(row) for row in answered])
            render.line()
        if any(row.evidence for row in part):
            bench_evidence.show(part)
        for row in part:
            _conclude(row)
    render.line("dense twin: the same graph with its zeros filled by random values; ORT: ONNX Runtime")
    render.line(f"on {hardware['cpu']}, {', '.join(hardware['instructions'])}, {load(hardware)}")
    render.line(_noise(noise))
    if rows and rows[0].processes < MIN_UNITS:
        render.line(
            f"intervals allow for starts of a process that differ by {START_SPREAD:.0%}; --processes {MIN_UNITS} "
            "measures that, and settles differences of some percent"
        )


def _show_rivals(rows: "list[Row]") -> None:
    """Integers against the dense model in float32, DeepSparse with as many zeros, and the fastest dense engine."""
    told = [asdict(row) for row in rows]
    dense = rivals.fastest_dense(told)
    cells = []
    for row, own in zip(rows, told, strict=True):
        gain = row.vs_float
        interval = f"{gain.low:.2f} to {gain.high:.2f}" if gain else "-"
        others = (rivals.fastest_deepsparse(told, row.sparsity), dense)
        factors = [rivals.times_as_fast(own, other) for other in others]
        cells.append(
            (row.engine, row.weights, _factor(gain), interval, *(f"{one:.2f}x" if one else "-" for one in factors))
        )
    render.table("times as fast as others in these turns", RIVALS, cells)
    render.line("DeepSparse: with as many zeros, in its fastest precision")
    if dense:
        ms = dense["latency"]["median_ms"]
        render.line(f"fastest dense: {dense['engine']}, {dense['weights']}, {ms:.{_digits(ms)}f} ms")
    render.line()


def show_against(compared: "Against", file: Path) -> None:
    """What became faster or slower since an earlier result, and what cannot be compared."""
    columns = ("engine", "weights", "then ms", "now ms", "speed-up", "95 % interval", "verdict")
    for where, group in groupby(compared.matches, lambda match: _where(match.contestant)):
        render.table(f"{where}, against {file}", columns, [_match(match) for match in group])
    for difference in compared.machine:
        render.line(f"another machine, so speed-ups tell of machines: {difference}")
    if compared.busy:
        render.line(f"a busy machine, which no interval accounts for: {'; '.join(compared.busy)}")
    for difference in compared.software:
        render.line(f"other versions: {difference}")
    for one in compared.unmatched:
        render.line(f"not compared: {contestant(one.contestant)}: {one.why}")
    render.line()


def contestant(named: dict[str, Any]) -> str:
    """One contestant in words."""
    return f"{_where(named)}: {named['engine']}, {named['weights']}"


def _where(named: dict[str, Any]) -> str:
    scenario = f"{named['scenario']}, " if named.get("scenario") else ""
    threads = f"{named['threads']} thread{'s' if named['threads'] > 1 else ''}"
    return f"{named['model']}: {scenario}batch {named['batch_size']}, {threads}"


def _match(match: "Match") -> tuple[str, ...]:
    times = [f"{figure:.{_digits(figure)}f}" for figure in (match.then_ms, match.now_ms)]
    found, who = match.speed_up, (match.contestant["engine"], match.contestant["weights"])
    if found is None:
        return *who, *times, f"{match.factor:.2f}x", "-", "-"
    interval = f"{found.low:.2f} to {found.high:.2f}"
    return *who, *times, f"{found.factor:.2f}x", interval, found.verdict


def show_pruner(found: "PrunerResult", suite: "PrunerSuite") -> None:
    """Both forms of elimination, and how well they agree."""
    title = f"{suite.blocks:,} Fisher blocks of {suite.block_size}, eliminated to the end, float32"
    rows = [(row.form, f"{row.median_s:.3g}", len(row.runs_s)) for row in found.rows]
    render.table(title, ("form", "median s", "runs"), rows)
    summary = found.summary
    render.line(
        f"the kernel is {summary.factor:.0f}x faster; {summary.same_order:.2%} of the weights go at the same turn, "
        f"losses differ by at most {summary.loss_difference:.1e}"
    )


def show_step(found: "StepResult", suite: "PrunerSuite") -> None:
    """Both forms of the whole pruning step, and how well they agree."""
    assert suite.step
    rows = [
        (row.form, f"{row.outcome.seconds:.3g}", f"{row.outcome.cpu_s:.3g}", f"{row.outcome.peak_bytes / 1e9:.2f}")
        for row in found.rows
    ]
    outcome = found.rows[0].outcome
    title = f"{_pruned(suite.step, outcome.num_layers, outcome.num_weights)}, blocks of {suite.block_size}"
    render.table(f"{title}: the whole pruning step", ("form", "seconds", "CPU s", "peak GB"), rows)
    summary = found.summary
    render.line(
        f"{summary.factor:.1f}x faster, with {summary.memory_share:.0%} of the memory (over the model's); "
        f"{summary.same_fate:.2%} of the weights meet the same fate"
    )


def show_memory(rows: "list[MemoryRow]", suite: "PrunerMemorySuite") -> None:
    """Budgets, and what was used."""
    outcome = rows[0].outcome
    title = f"{_pruned(suite.step, outcome.num_layers, outcome.num_weights)}, blocks of {suite.block_size}"
    columns = ("budget GB", "used GB", "of budget", "passes", "seconds", "activations GB", "within +10 %")
    render.table(f"{title}: memory", columns, [_memory(row) for row in rows])
    render.line(
        "used: the most resident memory over that of the process with the model built, less the activations of a batch "
        f"of {suite.step.batch_size}"
    )


def _memory(row: "MemoryRow") -> tuple[str, ...]:
    outcome = row.outcome
    return (
        f"{row.budget / 1e9:g}",
        f"{row.used / 1e9:.2f}",
        f"{row.used / row.budget:.0%}",
        str(outcome.passes),
        f"{outcome.seconds:.3g}",
        f"{outcome.activation_bytes / 1e9:.2f}",
        "yes" if row.within else "no",
    )


def _pruned(step: "PruningStep", num_layers: int, num_weights: int) -> str:
    """What was pruned, in words; says so where it is not the whole model."""
    which = "" if step.layers == "all" else f" (only {step.layers})"
    return f"{step.model}, {num_layers} layers{which}, {num_weights:,} weights, {step.num_grads} gradients"


def _times(row: "Row") -> tuple[str, ...]:
    if row.latency is None:
        return (row.engine, row.weights, "failed", *["-"] * 5)
    figures = (row.latency.median_ms, row.latency.p90_ms, row.latency.p99_ms, row.latency.images_per_s)
    factors = (_factor(row.vs_dense), _factor(row.vs_onnxruntime))
    return row.engine, row.weights, *(f"{figure:.{_digits(figure)}f}" for figure in figures), *factors


def _digits(figure: float) -> int:
    return 2 if figure < 10 else 1 if figure < 1000 else 0


def _factor(speed_up: "SpeedUp | None") -> str:
    return f"{speed_up.factor:.2f}x" if speed_up else "-"


def _start(row: "Row") -> tuple[str, ...]:
    return (
        row.engine,
        row.weights,
        "-" if row.load_s is None else f"{row.load_s:.1f}",
        "-" if row.compile_s is None else f"{row.compile_s:.1f}",
        "-" if row.first_ms is None else f"{row.first_ms:.1f}",
        "-" if row.peak_mib is None else f"{row.peak_mib:.0f}",
        "-" if row.file_mib is None else f"{row.file_mib:.1f}",
    )


def _logits(row: "Row") -> tuple[str, ...]:
    return (
        row.engine,
        row.weights,
        "-" if row.agreement is None else f"{row.agreement.max_abs_difference:.1g}",
        "-" if row.agreement is None else f"{row.agreement.top1:.0%}",
        _evidence(row.about),
    )


def _answers(row: "Row") -> tuple[str, ...]:
    found = row.accuracy
    assert found
    low, high = found.interval95
    told = (row.engine, row.weights, f"{found.top1:.2%}", f"{low:.2%} to {high:.2%}", f"{found.images:,}")
    if found.p_value is None:
        return *told, "-", "-", "-"
    return *told, found.baseline or "-", f"{found.only_here} / {found.only_baseline}", f"{found.p_value:.2g}"


def _evidence(about: dict[str, Any]) -> str:
    """What the runtime tells of how it ran the graph: layers by precision, or operators of its fast runtime."""
    if "supported_operators" in about:
        return f"{about['supported_operators']:.0%} of operators"
    return ", ".join(f"{count} {name}" for name, count in about.get("precisions", {}).items()) or "-"


def _conclude(row: "Row") -> None:
    """What the zeros bought on this engine, with its interval."""
    if row.vs_dense and row.latency:
        found = row.vs_dense
        render.line(
            f"{row.engine}, {row.weights}: {found.verdict}, {found.factor:.2f}x as fast as its dense twin "
            f"(95 % interval {found.low:.2f} to {found.high:.2f}, {row.latency.num_runs} runs, "
            f"{row.processes} process{'es' if row.processes > 1 else ''})"
        )


def _scenario(row: "Row") -> str:
    """How runs followed each other, where that is not plain one after the other."""
    if row.scenario == "offline":
        return f", offline with {row.streams} stream{'s' if row.streams > 1 else ''}"
    return f", server at {row.rate:.3g} queries/s" if row.scenario == "server" and row.rate else ""


def _noise(found: "Noise") -> str:
    """What disturbed the benchmark, in words."""
    told = {
        "cores busy before": found.busy,
        "waiting for a core": found.waited,
        "stolen": found.stolen,
        "throttled": found.throttled,
        "clock changed": found.clock_spread,
    }
    return "noise: " + ", ".join(f"{name} {'unknown' if v is None else f'{v:.0%}'}" for name, v in told.items())


def load(hardware: dict[str, Any]) -> str:
    """How busy the machine was, in words."""
    return f"load {hardware['load_average'][0]:.1f} on {hardware['usable_cores']} cores before the start"
