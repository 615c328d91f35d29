"""``ovit-deploy bench``: how fast a model is on real engines, and what its zeros bought there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ovit_deploy.cli import bench_tables, render
from ovit_deploy.engines import ENGINES, inventory
from ovit_deploy.engines.selection import Selection
from ovit_deploy.errors import EngineError, OvitError, RegressionError

if TYPE_CHECKING:
    from torch import nn

    from ovit_deploy.bench.against import Against
    from ovit_deploy.bench.latency import Watch
    from ovit_deploy.bench.results import Row
    from ovit_deploy.bench.source import Source
    from ovit_deploy.bench.suite import LatencySuite, PrunerMemorySuite, PrunerSuite


def bench(
    *,
    engine: tuple[str, ...] = (),
    model: str | None = None,
    run: str | None = None,
    sparsity: tuple[float, ...] = (),
    batch_size: int | None = None,
    threads: int | None = None,
    duration: float | None = None,
    iterations: int | None = None,
    suite: str | None = None,
    seed: int | None = None,
    timeout: float | None = None,
    output: Path | None = None,
    against: Path | None = None,
    json: bool = False,
) -> None:
    """Time a sparse model and its dense twin on real engines, each in a process of its own, in turns.

    Without --model it takes the newest export. The dense twin is the same graph with its zeros filled, so the
    ratio of the two is what the sparsity bought. DeepSparse is installed on first use (about 0.5 GB).

    Example: ovit-deploy bench --engine deepsparse --engine onnxruntime

    Args:
        engine: What runs the model: onnxruntime, openvino, pytorch, ovit, deepsparse, or all that are here; may be
            given several times. Options follow a colon: openvino:precision=bf16 (ovit-deploy engines lists them).
            By default onnxruntime.
        model: An .onnx file, or a timm model name to time with random weights.
        run: Take the export of this run, its name or folder.
        sparsity: Fraction of zeros to give a timm model; may be given several times. By default 0.75.
        batch_size: Images a run; by default 1.
        threads: Of each engine; by default 1, because timings on more are less steady.
        duration: Timed seconds for each model on each engine; by default 10.
        iterations: Timed runs instead of seconds.
        suite: A benchmark as a file, or the name of a shipped one; other flags override its values.
        seed: Of random weights, random images and the order of measuring; by default 0.
        timeout: Seconds that one step of an engine may take, building included; by default 600.
        output: The JSON file; by default bench.json of the run, or of this folder if there is no run.
        against: An earlier JSON file, to compare with: the same model, engine, weights, batch size and threads. Exit
            code 4 if one of them is slower now and the machine is the same.
        json: Print the JSON instead of tables.
    """
    from ovit_deploy.bench.suite import LatencySuite, PrunerMemorySuite, PrunerSuite, load_suite, override

    flags = {
        "engines": _engines(engine, model),
        "models": (model,) if model else (),
        "sparsities": sparsity,
        "batch_sizes": (batch_size,) if batch_size is not None else (),
        "threads": (threads,) if threads is not None else (),
        "duration_s": duration,
        "iterations": iterations,
        "seed": seed,
        "timeout_s": timeout,
    }
    given = {key: value for key, value in flags.items() if value not in (None, ())}
    declared = override(load_suite(suite) if suite else LatencySuite(), given)
    if against and not isinstance(declared, LatencySuite):
        raise OvitError(f"--against with kind: {declared.kind}", "only latencies are compared; leave it out")
    if isinstance(declared, PrunerSuite):
        _bench_pruner(declared, output, json=json)
    elif isinstance(declared, PrunerMemorySuite):
        _bench_pruner_memory(declared, output, json=json)
    else:
        _refuse_contradictions(declared.models, run, given)
        _bench_latency(declared, run, output, against, json=json)


def _engines(given: tuple[str, ...], model: str | None) -> tuple[str, ...]:
    """The engines that are meant; ``all`` leaves out those that cannot run here, and says so."""
    if "all" not in given:
        return tuple(dict.fromkeys(given))
    found = []
    for name, traits in ENGINES.items():
        status = inventory.status(name)
        if not (status.present or traits.pins):
            render.note(f"{name} is left out: it is not installed; {traits.install}")
        elif traits.reads == "checkpoint" and model and _is_file(model):
            render.note(f"{name} is left out: it runs checkpoints, and {model} is ONNX")
        else:
            found.append(name)
    return tuple(dict.fromkeys((*found, *(name for name in given if name != "all"))))


def _refuse_contradictions(models: tuple[str, ...], run: str | None, given: dict[str, Any]) -> None:
    """Raise OvitError for flags that do not go together."""
    if run and models:
        raise OvitError("--run and a model: two things to measure", "give one of them")
    if "sparsities" in given and all(map(_is_file, models)):
        raise OvitError("--sparsity: an .onnx file has its own zeros", "give a timm model name, or leave it out")


def _bench_latency(
    suite: "LatencySuite", run: str | None, output: Path | None, against: Path | None, *, json: bool
) -> None:
    from ovit_deploy.bench import against as earlier
    from ovit_deploy.bench import hardware, results

    then = earlier.load(against) if against else None
    hardware.require_cores(max(suite.threads))
    before = _machine()
    rows: list[Row] = []
    with TemporaryDirectory(prefix="ovit-bench-") as folder:
        sources = [_source(name, suite, run, Path(folder)) for name in suite.models or (None,)]
        for source in sources:
            rows += _measure(source, suite, Path(folder))
    home = sources[0].home if len(sources) == 1 else Path()
    path = output or home / "bench.json"
    result = results.document("latency", suite.model_dump(), before, rows)
    compared = earlier.compare(result, then, suite.seed) if then else None
    if compared:
        result["against"] = {"file": against.name if against else "", **compared.as_dict()}
    results.write(path, result)
    if json:
        render.as_json(result)
    else:
        bench_tables.show_latency(rows, before)
        if compared and against:
            bench_tables.show_against(compared, against)
        render.line(f"wrote {path}")
    _require_success(rows)
    if compared and against:
        _require_no_slower(compared, against)


def _is_file(model: str) -> bool:
    """Whether a model is meant as a path: timm's names have neither this ending nor a folder of that name."""
    return model.endswith(".onnx") or Path(model).exists()


def _source(model: str | None, suite: "LatencySuite", run: str | None, folder: Path) -> "Source":
    from ovit_deploy.bench import source

    if model is None:
        return source.from_run(run)
    if _is_file(model):
        path = Path(model)
        return source.from_file(path / "model.onnx" if path.is_dir() else path)
    render.note(f"{model}: exporting with random weights")
    return source.from_random(model, suite.sparsities, seed=suite.seed, folder=folder, export=_export)


def _export(model: "nn.Module", path: Path) -> None:
    """Write a model in the form that DeepSparse runs fast and every engine reads."""
    import onnx_ir
    import timm
    import torch

    from ovit_deploy.export.profile import load_profile
    from ovit_deploy.export.to_onnx import to_onnx

    images = torch.zeros(1, *timm.data.resolve_model_data_config(model)["input_size"])
    onnx_ir.save(to_onnx(model, images, profile=load_profile("deepsparse")), path)


def _measure(source: "Source", suite: "LatencySuite", folder: Path) -> "list[Row]":
    """All batch sizes and numbers of threads of one source."""
    from ovit_deploy.bench.latency import Settings, measure_latency
    from ovit_deploy.bench.subject import prepare

    rows = []
    with_checkpoints = any(Selection.parse(name).traits.reads == "checkpoint" for name in suite.engines)
    for batch_size in suite.batch_sizes:
        subject = prepare(
            source, batch_size=batch_size, seed=suite.seed, folder=folder, with_checkpoints=with_checkpoints
        )
        for threads in suite.threads:
            settings = Settings(suite.engines, threads, suite.duration_s, suite.iterations, suite.seed, suite.timeout_s)
            render.note(f"{subject.name}: batch {batch_size}, {threads} thread(s), {subject.inputs}")
            with _watching() as watch:
                rows += measure_latency(subject, settings, watch)
    return rows


def _bench_pruner(suite: "PrunerSuite", output: Path | None, *, json: bool) -> None:
    from dataclasses import asdict

    from ovit_deploy.bench import results
    from ovit_deploy.bench.pruner import measure_pruner
    from ovit_deploy.bench.pruning_step import measure_step

    before = _machine()
    render.note(f"eliminating {suite.blocks:,} blocks of {suite.block_size}; the plain form takes its time")
    with _watching() as watch:
        found = measure_pruner(suite, on_round=watch.on_round)
    step = None
    if suite.step:
        render.note(f"{suite.step.model}: the whole pruning step; the plain form takes its time")
        with _watching() as watch:
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


def _bench_pruner_memory(suite: "PrunerMemorySuite", output: Path | None, *, json: bool) -> None:
    from ovit_deploy.bench import results
    from ovit_deploy.bench.pruning_memory import measure_memory

    before = _machine()
    render.note(f"{suite.step.model}: pruning once with each of {len(suite.budgets_gb)} budgets")
    with _watching() as watch:
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


def _machine() -> dict[str, Any]:
    """What we run on; a warning if it is busy."""
    from ovit_deploy.bench import hardware

    found = hardware.describe()
    if hardware.is_busy(found):
        render.warning(
            f"{bench_tables.load(found)}: times will be long and unsteady; end other work, or trust ratios only"
        )
    return found


@contextmanager
def _watching() -> "Iterator[Watch]":
    """A progress bar over rounds, and notes above it."""
    from ovit_deploy.bench.latency import Watch

    with render.progress() as bar:
        task = bar.add_task("rounds", total=None, visible=False, start=False)

        def on_round(done: int, total: int) -> None:
            if not done:
                bar.reset(task)
            bar.update(task, completed=done, total=total, visible=True)

        yield Watch(render.note, on_round)


def _require_no_slower(compared: "Against", file: Path) -> None:
    """Raise OvitError if nothing could be compared, RegressionError if something is slower on the same machine."""
    if not compared.matches:
        raise OvitError(f"--against {file}: has none of these contestants", "measure the same model, engines and sizes")
    if compared.slower:
        which = ", ".join(bench_tables.contestant(match.contestant) for match in compared.slower)
        raise RegressionError(f"slower than in {file}: {which}", "measure again on an idle machine")


def _require_success(rows: "list[Row]") -> None:
    """Raise EngineError if a row failed, with every different reason."""
    failed = [row for row in rows if row.error]
    if failed:
        reasons = dict.fromkeys(row.error for row in failed if row.error)
        hints = dict.fromkeys(row.hint for row in failed if row.hint)
        raise EngineError("\n  ".join([f"{len(failed)} of {len(rows)} failed", *reasons]), "; ".join(hints))
