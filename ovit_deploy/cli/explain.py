"""``ovit-deploy explain``: what zeros would gain on an engine, and why, before anything is trained."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from ovit_deploy import models
from ovit_deploy.cli import bench_tables, render
from ovit_deploy.engines.selection import Selection
from ovit_deploy.errors import EngineError, OvitError

if TYPE_CHECKING:
    from ovit_deploy.explain.prediction import Explanation, Prediction, Shares

Positive = Annotated[int, Parameter(validator=Number(gte=1))]


def explain(
    model: str | None = None,
    /,
    *,
    engine: str = "deepsparse",
    sparsity: Annotated[float, Parameter(validator=Number(gt=0, lt=1))] = 0.75,
    precision: Literal["fp32", "int8"] = "fp32",
    pattern: Literal["unstructured", "block4", "2:4"] = "unstructured",
    batch_size: Positive = 1,
    threads: Positive = 1,
    checkpoint: Path | None = None,
    quick: bool = False,
    verify: bool = False,
    fresh: bool = False,
    duration: Annotated[float, Parameter(validator=Number(gt=0))] = 5.0,
    timeout: float = 600.0,
    output: Path | None = None,
    json: bool = False,
) -> None:
    """Predict how fast a vision transformer becomes with zeros, and say why and what else would help.

    Times short models made of the real one's blocks on the engine, in turns, and adds them up. Nothing is trained:
    weights are random. What was measured is kept in the cache folder.

    Example: ovit-deploy explain deit_small_patch16_224 --engine deepsparse --sparsity 0.75

    Args:
        model: A timm model name; without it and --checkpoint, the small ViT in this package.
        engine: What would run the model; options follow a colon: openvino:precision=bf16.
        sparsity: Fraction of zeros in the linear layers of every block.
        precision: Of products: fp32 or int8.
        pattern: How the zeros lie: unstructured, block4, or 2:4 (half of the weights).
        batch_size: Images a run.
        threads: Of the engine.
        checkpoint: A safetensors file that says which model it holds, instead of a name; only shapes are looked at.
        quick: Leave out other forms and engines.
        verify: Time the whole model beside its pieces, too, and tell how far the prediction is off.
        fresh: Measure again what the cache holds.
        duration: Timed seconds of each piece.
        timeout: Seconds that one step of an engine may take, building included.
        output: A JSON file to write the prediction to.
        json: Print the JSON instead of tables.
    """
    if pattern == "2:4" and sparsity != 0.5:
        raise OvitError(f"--pattern 2:4 with --sparsity {sparsity:g}: it has half of its weights", "--sparsity 0.5")
    try:
        engine = str(Selection.parse(engine))
    except ValueError as error:
        raise EngineError(f"--engine: {error}", "ovit-deploy engines") from None

    from ovit_deploy.bench import hardware, results
    from ovit_deploy.bench.latency import Watch
    from ovit_deploy.explain.alternatives import alternatives
    from ovit_deploy.explain.forms import Form
    from ovit_deploy.explain.pieces import Workshop
    from ovit_deploy.explain.prediction import explain as predict
    from ovit_deploy.explain.session import Bench, Settings

    hardware.require_cores(threads)
    machine = hardware.describe()
    if hardware.is_busy(machine):
        render.warning(f"{bench_tables.load(machine)}: times will be long and unsteady; trust ratios only")
    choice = models.choose(model, checkpoint=checkpoint, pretrained=False)
    network = models.build(models.Choice(choice.spec))
    asked = Form(engine, sparsity, precision, pattern)
    settings = Settings(threads, duration, timeout_s=timeout, fresh=fresh)
    with TemporaryDirectory(prefix="ovit-explain-") as folder:
        workshop = Workshop(network, Path(folder), batch_size=batch_size, seed=settings.seed)
        bench = Bench(workshop, settings, Watch(render.note))
        found = predict(bench, asked, others=() if quick else alternatives(asked), verify=verify)
    told = document(found, machine, model=choice.spec.name, batch_size=batch_size, threads=threads)
    if output:
        results.write(output, told)
    if json:
        render.as_json(told)
        return
    show(found, f"{choice.spec.name}: batch {batch_size}, {threads} thread{'s' if threads > 1 else ''}", sparsity)
    if output:
        render.line(f"wrote {output}")
    render.next_command(f"ovit-deploy bench --model {choice.spec.name} --sparsity {sparsity:g} --engine {engine}")


def document(found: "Explanation", machine: dict[str, Any], **about: Any) -> dict[str, Any]:
    """The prediction as plain data."""
    from dataclasses import asdict

    told: dict[str, Any] = asdict(found)
    if found.shares:
        told["shares"] |= {"fixed": found.shares.fixed}
    return {"format": 1, "kind": "explain", **about, "hardware": machine, **told}


def show(found: "Explanation", title: str, sparsity: float) -> None:
    """What is predicted, where the time goes, what else helps, and how good the prediction is."""
    columns = ("engine", "form", "ms", "vs dense", "95 %", "verdict")
    render.table(f"{title}, predicted", columns, [_row(one) for one in (found.dense, found.sparse)])
    render.line()
    if found.shares:
        _show_shares(found.shares, sparsity)
    else:
        render.line(f"{found.dense.engine} runs whole blocks only: where its time goes is not known")
    if found.others:
        render.line()
        worth = sorted(found.others, key=lambda one: one.ms or float("inf"))
        render.table(f"what else, each timed beside {found.dense.form}", columns, [_row(one) for one in worth])
        for one in found.others:
            if one.error:
                render.line(f"{one.engine}, {one.form}: {one.error}")
    for check in found.checks:
        render.line(
            f"whole model, {check.form}: {check.measured_ms:.4g} ms measured, {check.predicted_ms:.4g} predicted, "
            f"ratio {check.ratio:.3f}"
        )


def _row(one: "Prediction") -> tuple[str, ...]:
    if one.ms is None:
        return one.engine, one.form, "failed", "-", "-", "-"
    gain = one.vs_dense
    told = (f"{gain.factor:.2f}x", f"{gain.low:.2f} to {gain.high:.2f}", gain.verdict) if gain else ("-", "-", "-")
    return one.engine, one.form, f"{one.ms:.4g}", *told


def _show_shares(shares: "Shares", sparsity: float) -> None:
    """Amdahl's law for this model on this engine."""
    parts = {
        "linear layers of the blocks": shares.linears,
        "products of attention, softmax": shares.products,
        "norms, GELU, residuals": shares.rest,
        "patch embedding and head": shares.ends,
    }
    total = sum(parts.values())
    rows = [(name, f"{ms:.3g}", f"{ms / total:.0%}") for name, ms in parts.items()]
    render.table("where the dense model spends its time", ("part", "ms", "share"), rows)
    render.line(
        f"zeros cannot touch {shares.fixed:.0%} of it: at most {1 / shares.fixed:.2f}x, were the linear layers free; "
        f"{sparsity:.0%} zeros make those {shares.linear_gain:.2f}x as fast, of {1 / (1 - sparsity):.1f}x in theory"
    )
