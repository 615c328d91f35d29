"""``ovit-deploy export``: a pruned model becomes an ONNX file that is proven to be the model."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from ovit_deploy import checkpoint, models
from ovit_deploy.checkpoint import Run
from ovit_deploy.cli import render
from ovit_deploy.engines import ENGINES
from ovit_deploy.errors import OvitError

if TYPE_CHECKING:
    from ovit_deploy.data import Preprocessing
    from ovit_deploy.export.card import Facts
    from ovit_deploy.export.deployment import ExportReport

RUN_FACTS = ("created", "recipe", "data", "seed", "dense", "final", "quantization")


def export(
    *,
    onnx: Annotated[bool, Parameter(negative=())] = True,
    run: str | None = None,
    profile: str | None = None,
    quantize: Literal["int8"] | None = None,
    smooth: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1))] = None,
    max_drop: Annotated[float | None, Parameter(validator=Number(gte=0))] = None,
    data: str | None = None,
    num_images: Annotated[int, Parameter(validator=Number(gte=1))] = 256,
    output: Path | None = None,
    compress: bool = False,
    json: bool = False,
) -> None:
    """Write the model of a run as sparse ONNX, and prove on test images that the file is the model.

    Into the run goes a folder, deployment: model.onnx, model.json (what it is), recipe.yaml, and a few sample inputs
    with their outputs. The default profile is the form that DeepSparse runs fast; every engine reads it.

    Example: ovit-deploy export --onnx

    Args:
        onnx: The format; there is no other.
        run: The run to export, its name or folder; by default the newest.
        profile: A profile file, or the name of a shipped one; by default deepsparse or, quantized, deepsparse_int8.
        quantize: Round a float model to INT8 first, with ranges from training images; nothing is trained.
        smooth: With --quantize, move this much (0 to 1; 0.5 is usual) of what makes LayerNorm's outputs hard to round
            into the weights after them (SmoothQuant).
        max_drop: With --quantize, leave as many of the most sensitive layers in floating point as it takes to lose at
            most so many points of top-1 on training images that ranges are not taken from.
        data: The images to verify with, as given to prune; by default those of the run.
        num_images: Test images to verify with.
        output: The folder to write; by default the run's own.
        compress: Write model.onnx.packed beside model.onnx, too: the same file in a fraction of the space. The command
            ovit-deploy expand makes model.onnx of it again, bit by bit.
        json: Print model.json instead of a table.
    """
    from ovit_deploy.cli import quantize_export
    from ovit_deploy.data import Preprocessing, load_data, sample_images
    from ovit_deploy.export import deployment
    from ovit_deploy.export.profile import load_profile
    from ovit_deploy.recipe.quantization import Quantization

    source = checkpoint.load_run(checkpoint.run_folder(run))
    _refuse_contradictions(source, quantize, smooth, max_drop)
    integers = quantize is not None or source.spec.quantization is not None
    declared = load_profile(profile or ("deepsparse_int8" if integers else "deepsparse"))
    model = models.build(models.Choice(source.spec, weights=source.weights))
    preprocessing = Preprocessing.of(model)
    sets = load_data(data or source.facts.get("data_source"))
    images, _ = sample_images(sets.test, preprocessing, num_images)
    facts = _facts(source, preprocessing)
    if quantize:
        model, told = quantize_export.quantized(
            model, declared.quantization or Quantization(), sets, images, smooth_by=smooth, max_drop=max_drop
        )
        facts = replace(facts, run={**facts.run, "post_training": told})
    report = deployment.export(
        model,
        images=images,
        masks=source.masks(),
        profile=declared,
        facts=facts,
        recipe_text=source.recipe_text,
        destination=output.expanduser() if output else source.folder / "deployment",
        compress=compress,
        progress=lambda step: render.note(f"{source.folder.name}: {step}"),
    )
    if json:
        render.as_json(report.card)
        return
    _show(report)
    engine = next((name for name in ENGINES if declared.name.startswith(name)), "onnxruntime")
    render.next_command(f"ovit-deploy bench --engine {engine}" + (f" --model {report.file}" if output else ""))


def _refuse_contradictions(run: Run, quantize: str | None, smooth: float | None, max_drop: float | None) -> None:
    """Raise OvitError for flags that do not go together."""
    if quantize and run.spec.quantization:
        raise OvitError(f"--quantize {quantize}: {run.folder.name} is quantized already", "leave out --quantize")
    for flag, value in (("--smooth", smooth), ("--max-drop", max_drop)):
        if value is not None and not quantize:
            raise OvitError(f"{flag} without --quantize", "add --quantize int8")


def _facts(run: Run, preprocessing: "Preprocessing") -> "Facts":
    from ovit_deploy.export.card import Facts

    return Facts(
        name=run.spec.name,
        kwargs=run.spec.kwargs,
        classes=run.spec.classes,
        preprocessing=preprocessing.as_dict(),
        run={"name": run.folder.name} | {key: run.facts[key] for key in RUN_FACTS if key in run.facts},
        structure=run.spec.structure,
        token_merging=run.spec.token_merging,
    )


def _show(report: "ExportReport") -> None:
    """One line for the file, one a number that proves it."""
    sparsity, checked = report.card["sparsity"], report.card["verification"]
    columns = ("file", "size", "sparsity", "of all", "max difference", "same top-1", "images")
    row = (
        report.file.name,
        f"{report.size_bytes / 1e6:.1f} MB",
        f"{sparsity['prunable']:.2%}",
        f"{sparsity['all']:.2%}",
        f"{checked['max_abs_difference']:.1e}",
        f"{checked['top1_agreement']:.0%}",
        checked["num_images"],
    )
    render.table(f"{report.card['model']['name']}, profile {report.card['profile']['name']}", columns, [row])
    if packed := report.card.get("packed"):
        share = packed["bytes"] / report.size_bytes
        render.line(f"{packed['file']}: {packed['bytes'] / 1e6:.2f} MB, {share:.1%} of {report.file.name}")
    render.line(f"wrote {report.folder}")
