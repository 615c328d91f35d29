"""``ovit-deploy bench``: how fast a model is on real engines, and what its zeros bought there."""

from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ovit_deploy.bench.suite import Pattern, Precision
from ovit_deploy.cli import bench_checks, bench_tables, render
from ovit_deploy.cli.bench_pruner import bench_pruner, bench_pruner_memory
from ovit_deploy.cli.bench_watch import watching
from ovit_deploy.engines import ENGINES, inventory
from ovit_deploy.engines.selection import Selection
from ovit_deploy.errors import EngineError, NoiseError, OvitError, RegressionError

if TYPE_CHECKING:
    from ovit_deploy.bench.against import Against
    from ovit_deploy.bench.labelled import Labelled
    from ovit_deploy.bench.noise import Noise
    from ovit_deploy.bench.results import Row
    from ovit_deploy.bench.source import Source
    from ovit_deploy.bench.suite import LatencySuite


def bench(
    *,
    engine: tuple[str, ...] = (),
    model: str | None = None,
    run: str | None = None,
    sparsity: tuple[float, ...] = (),
    pattern: tuple[Pattern, ...] = (),
    precision: tuple[Precision, ...] = (),
    batch_size: int | None = None,
    threads: int | None = None,
    duration: float | None = None,
    iterations: int | None = None,
    processes: int | None = None,
    scenario: str | None = None,
    rate: float | None = None,
    streams: int | None = None,
    evidence: bool = False,
    top1: int | Literal["all"] | None = None,
    data: str | None = None,
    calibrate: bool = False,
    runs: int = 20,
    planted: float = 0.0,
    own_tool: bool = False,
    allow_noise: Annotated[bool, Parameter(env_var="OVIT_DEPLOY_ALLOW_NOISE")] = False,
    suite: str | None = None,
    seed: int | None = None,
    timeout: float | None = None,
    output: Path | None = None,
    plot: Path | None = None,
    against: Path | None = None,
    json: bool = False,
) -> None:
    """Time a sparse model and its dense twin on real engines, each in a process of its own, in turns.

    Without --model it takes the newest export. The dense twin is the same graph with its zeros filled, so the
    ratio of the two is what the sparsity bought. DeepSparse is installed on first use (about 0.5 GB).

    Example: ovit-deploy bench --engine deepsparse --engine onnxruntime

    Args:
        engine: What runs the model: onnxruntime, openvino, pytorch, ovit, deepsparse, on GPUs pytorch_cuda, tensorrt or
            tensorrt_rtx, or all that can run here; may be given several times. Options follow a colon:
            openvino:precision=bf16 (ovit-deploy engines lists them). By default onnxruntime.
        model: An .onnx file, or a timm model name to time with random weights.
        run: Take the export of this run, its name or folder.
        sparsity: Fraction of zeros to give a timm model; may be given several times. By default 0.75.
        pattern: Where those zeros are: unstructured (the default), or block4, in groups of four inputs.
        precision: Of a timm model: float32 (the default), or int8, attention included.
        batch_size: Images a run; by default 1.
        threads: Of each engine; by default 1, because timings on more are less steady.
        duration: Timed seconds for each model on each engine; by default 10.
        iterations: Timed runs instead of seconds.
        processes: Fresh processes for each model on each engine, which share the time; by default 1. From 6 on,
            verdicts rest on them alone; with fewer, intervals are widened by what starts of a process may differ in.
        scenario: How runs follow each other, by MLPerf's names: single_stream (the default), offline (several processes
            at once, for throughput), or server (queries arrive at random; latency from the arrival).
        rate: Queries a second that arrive, for server; by default 70 % of what the slowest can do.
        streams: Processes at once, for offline; by default as many as fill the cores.
        evidence: Profile the layers too: what each takes, in which kernels, and what pruning can touch of the time.
        top1: Test images that every engine answers after it was timed: a number, drawn by chance, or all. The row has
            its top-1 through that engine, and whether it differs from ONNX Runtime's (McNemar).
        data: These images, as evaluate takes them; by default those of the run.
        calibrate: Measure the measuring: the same file against itself, --runs times; how often is the verdict wrong,
            and which difference would be found?
        runs: Benchmarks of a calibration.
        planted: A slow-down to plant in a third contestant of a calibration, such as 0.05, and to find again.
        own_tool: Compare our medians with those of each engine's own benchmark tool, in turns.
        allow_noise: Measure on a busy machine too; otherwise exit code 3 when engines have to wait for their cores.
        suite: A benchmark as a file, or the name of a shipped one; other flags override its values.
        seed: Of random weights, random images and the order of measuring; by default 0.
        timeout: Seconds that one step of an engine may take, building included; by default 600.
        output: The JSON file; by default bench.json of the run, or of this folder if there is no run.
        plot: An SVG file to draw the latencies to.
        against: An earlier JSON file, to compare with: the same model, engine, weights, batch size and threads. Exit
            code 4 if one of them is slower now and the machine is the same.
        json: Print the JSON instead of tables.
    """
    from ovit_deploy.bench.suite import LatencySuite, PrunerMemorySuite, PrunerSuite, load_suite, override

    flags = {
        "engines": chosen_engines(engine, model),
        "models": (model,) if model else (),
        "sparsities": sparsity,
        "patterns": pattern,
        "precisions": precision,
        "batch_sizes": (batch_size,) if batch_size is not None else (),
        "threads": (threads,) if threads is not None else (),
        "duration_s": duration,
        "iterations": iterations,
        "processes": processes,
        "scenario": scenario,
        "rate": rate,
        "streams": streams,
        "evidence": evidence or None,
        "top1": top1,
        "data": data,
        "seed": seed,
        "timeout_s": timeout,
    }
    given = {key: value for key, value in flags.items() if value not in (None, ())}
    declared = override(load_suite(suite) if suite else LatencySuite(), given)
    if against and not isinstance(declared, LatencySuite):
        raise OvitError(f"--against with kind: {declared.kind}", "only latencies are compared; leave it out")
    if isinstance(declared, PrunerSuite):
        bench_pruner(declared, output, json=json)
    elif isinstance(declared, PrunerMemorySuite):
        bench_pruner_memory(declared, output, json=json)
    else:
        _refuse_contradictions(declared.models, run, given)
        if calibrate or own_tool:
            with TemporaryDirectory(prefix="ovit-bench-") as folder:
                sources = _sources(declared, run, Path(folder))
                check = bench_checks.Check(declared, sources, Path(folder), allow_noise, output, json)
                check.calibrate(runs, planted) if calibrate else check.own_tool()
            return
        files = Files(output, plot, against)
        _bench_latency(declared, run, files, allow_noise=allow_noise, json=json)


def chosen_engines(given: tuple[str, ...], model: str | None) -> tuple[str, ...]:
    """The engines that are meant; ``all`` leaves out those that cannot run here, and says so."""
    if "all" not in given:
        return tuple(dict.fromkeys(given))
    found = []
    for name, traits in ENGINES.items():
        status = inventory.status(name)
        if status.refusal:
            render.note(f"{name} is left out: it {status.refusal}")
        elif not (status.present or traits.pins):
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
    own = {"sparsities": "--sparsity", "patterns": "--pattern", "precisions": "--precision"}
    for flag in [flag for key, flag in own.items() if key in given]:
        if all(map(_is_file, models)):
            raise OvitError(f"{flag}: an .onnx file has its own", "give a timm model name, or leave it out")


@dataclass(frozen=True)
class Files:
    """What a benchmark writes, and what it is compared with; None where the user named none."""

    output: Path | None
    plot: Path | None
    against: Path | None


def _bench_latency(suite: "LatencySuite", run: str | None, files: Files, *, allow_noise: bool, json: bool) -> None:
    from ovit_deploy.bench import against as earlier
    from ovit_deploy.bench import hardware, noise, picture, results

    _refuse_random_answers(suite)
    against = files.against
    then = earlier.load(against) if against else None
    before = hardware.describe()
    placement = bench_checks.place(suite, allow_noise=allow_noise)
    rows: list[Row] = []
    with TemporaryDirectory(prefix="ovit-bench-") as folder:
        sources = _sources(suite, run, Path(folder))
        began = noise.count()
        for source in sources:
            rows += _measure(source, suite, Path(folder), placement.cores)
    home = sources[0].home if len(sources) == 1 else Path()
    path = files.output or home / "bench.json"
    found = noise.judge(began, noise.count(), placement.busy, rows)
    result = results.document("latency", suite.model_dump(), before, rows, noise=asdict(found))
    compared = earlier.compare(result, then, suite.seed) if then else None
    if compared:
        result["against"] = {"file": against.name if against else "", **compared.as_dict()}
    results.write(path, result)
    if files.plot and any(row.latency for row in rows):
        picture.write(files.plot, result)
    if json:
        render.as_json(result)
    else:
        bench_tables.show_latency(rows, before, found)
        if compared and against:
            bench_tables.show_against(compared, against)
        render.line(f"wrote {path}")
    _require_success(rows)
    _require_quiet(found, path, allow_noise=allow_noise)
    if compared and against:
        _require_no_slower(compared, against)


def _is_file(model: str) -> bool:
    """Whether a model is meant as a path: timm's names have neither this ending nor a folder of that name."""
    return model.endswith(".onnx") or Path(model).exists()


def _sources(suite: "LatencySuite", run: str | None, folder: Path) -> "list[Source]":
    from ovit_deploy.bench import source

    found = []
    for model in suite.models or (None,):
        if model is None:
            found.append(source.from_run(run))
        elif _is_file(model):
            path = Path(model)
            found.append(source.from_file(path / "model.onnx" if path.is_dir() else path))
        else:
            found += _random_sources(model, suite, folder)
    return found


def _random_sources(model: str, suite: "LatencySuite", folder: Path) -> "list[Source]":
    """A timm model in every precision, with every pattern of zeros."""
    from ovit_deploy.bench import source
    from ovit_deploy.cli.random_export import export

    found, float_dense = [], None
    if suite.beside_float and "int8" in suite.precisions:
        render.note(f"{model}: exporting with random weights, dense float32")
        float_dense = source.dense_in_float(model, seed=suite.seed, folder=folder, export=export)
    for precision, pattern in product(suite.precisions, suite.patterns):
        render.note(f"{model}: exporting with random weights, {precision}, {pattern}")
        found.append(
            source.from_random(
                model,
                suite.sparsities,
                pattern=pattern,
                precision=precision,
                float_dense=float_dense if precision == "int8" else None,
                seed=suite.seed,
                folder=folder,
                export=export,
            )
        )
    return found


def _measure(source: "Source", suite: "LatencySuite", folder: Path, cores: tuple[int, ...]) -> "list[Row]":
    """All batch sizes and numbers of threads of one source."""
    from ovit_deploy.bench.latency import measure_latency
    from ovit_deploy.bench.subject import prepare

    rows = []
    labelled = _labelled(source, suite)
    with_checkpoints = any(Selection.parse(name).traits.reads == "checkpoint" for name in suite.engines)
    for batch_size in suite.batch_sizes:
        subject = prepare(
            source, batch_size=batch_size, seed=suite.seed, folder=folder, with_checkpoints=with_checkpoints
        )
        subject = replace(subject, labelled=labelled)
        for threads in suite.threads:
            settings = bench_checks.settings(suite, threads, cores)
            render.note(f"{subject.name}: batch {batch_size}, {threads} thread(s), {subject.inputs}")
            with watching() as watch:
                rows += measure_latency(subject, settings, watch)
    return rows


def _refuse_random_answers(suite: "LatencySuite") -> None:
    """Raise OvitError if top-1 is wanted of a timm name."""
    if suite.top1 is not None and not all(map(_is_file, suite.models)):
        raise OvitError("--top1 with a timm name: its weights are random", "give --run, or the .onnx file of an export")


def _labelled(source: "Source", suite: "LatencySuite") -> "Labelled | None":
    """The images for top-1, if that is wanted."""
    if suite.top1 is None:
        return None
    from ovit_deploy.bench import labelled

    return labelled.of_export(source, suite.data, count=suite.top1, seed=suite.seed)


def _require_quiet(found: "Noise", path: Path, *, allow_noise: bool) -> None:
    """Raise NoiseError if the machine was too noisy meanwhile; the result is written all the same."""
    if found.reasons and not allow_noise:
        from ovit_deploy.bench import noise

        raise NoiseError(f"too noisy while {path} was measured: {'; '.join(found.reasons)}", noise.HINT)


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
