"""``ovit-deploy export``: a pruned model becomes an ONNX file that is proven to be the model."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from ovit_deploy import checkpoint, models
from ovit_deploy.checkpoint import Run
from ovit_deploy.cli import render
from ovit_deploy.errors import OvitError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ovit_deploy.data import ImageData, Preprocessing
    from ovit_deploy.export.card import Facts
    from ovit_deploy.export.deployment import ExportReport

RUN_FACTS = ("created", "recipe", "data", "seed", "dense", "final")


def export(
    *,
    onnx: Annotated[bool, Parameter(negative=())] = True,
    run: str | None = None,
    profile: str | None = None,
    quantize: Literal["int8"] | None = None,
    data: str | None = None,
    num_images: Annotated[int, Parameter(validator=Number(gte=1))] = 256,
    output: Path | None = None,
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
        data: The images to verify with, as given to prune; by default those of the run.
        num_images: Test images to verify with.
        output: The folder to write; by default the run's own.
        json: Print model.json instead of a table.
    """
    from ovit_deploy.data import Preprocessing, load_data, sample_images
    from ovit_deploy.export import deployment
    from ovit_deploy.export.profile import load_profile

    source = checkpoint.load_run(checkpoint.run_folder(run))
    if quantize and source.spec.quantization:
        raise OvitError(f"--quantize {quantize}: {source.folder.name} is quantized already", "leave out --quantize")
    integers = quantize is not None or source.spec.quantization is not None
    declared = load_profile(profile or ("deepsparse_int8" if integers else "deepsparse"))
    model = models.build(models.Choice(source.spec, weights=source.weights))
    preprocessing = Preprocessing.of(model)
    sets = load_data(data or source.facts.get("data_source"))
    images, _ = sample_images(sets.test, preprocessing, num_images)
    facts = _facts(source, preprocessing)
    if quantize:
        model, near = _quantized(model, sets, preprocessing, images)
        facts = replace(facts, run={**facts.run, "post_training": near})
    report = deployment.export(
        model,
        images=images,
        masks=source.masks(),
        profile=declared,
        facts=facts,
        recipe_text=source.recipe_text,
        destination=output.expanduser() if output else source.folder / "deployment",
        progress=lambda step: render.note(f"{source.folder.name}: {step}"),
    )
    if json:
        render.as_json(report.card)
        return
    _show(report)
    render.next_command("ovit-deploy bench --engine deepsparse" + (f" --model {report.file}" if output else ""))


def _quantized(
    model: "nn.Module", sets: "ImageData", preprocessing: "Preprocessing", images: "Tensor"
) -> tuple["nn.Module", dict[str, Any]]:
    """The model after post-training quantization, and what it is worth."""
    from ovit_deploy.data import calibration_batches
    from ovit_deploy.export.post_training import NUM_CALIBRATION_IMAGES, quantized
    from ovit_deploy.recipe.quantization import Quantization

    count = min(NUM_CALIBRATION_IMAGES, len(sets.train))  # pyrefly: ignore[bad-argument-type]
    batches = calibration_batches(sets.train, preprocessing, count, seed=0)
    model, near = quantized(model, Quantization(), batches(), images)
    render.note(
        f"{near.num_layers} layers quantized with {count} training images: same top-1 as the float model for "
        f"{near.top1_agreement:.1%} of {len(images)} test images, cosine {near.cosine:.4f}"
    )
    return model, near.as_dict()


def _facts(run: Run, preprocessing: "Preprocessing") -> "Facts":
    from ovit_deploy.export.card import Facts

    return Facts(
        name=run.spec.name,
        kwargs=run.spec.kwargs,
        classes=run.spec.classes,
        preprocessing=preprocessing.as_dict(),
        run={"name": run.folder.name} | {key: run.facts[key] for key in RUN_FACTS if key in run.facts},
        structure=run.spec.structure,
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
    render.line(f"wrote {report.folder}")
