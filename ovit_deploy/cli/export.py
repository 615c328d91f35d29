"""``ovit-deploy export``: a pruned model becomes an ONNX file that is proven to be the model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ovit_deploy import checkpoint, models
from ovit_deploy.checkpoint import Run
from ovit_deploy.cli import render

if TYPE_CHECKING:
    from ovit_deploy.data import Preprocessing
    from ovit_deploy.export.card import Facts
    from ovit_deploy.export.deployment import ExportReport

RUN_FACTS = ("created", "recipe", "data", "seed", "dense", "final")


def export(
    *,
    onnx: Annotated[bool, Parameter(negative=())] = True,
    run: str | None = None,
    profile: str = "deepsparse",
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
        profile: A profile file, or the name of a shipped one.
        data: The images to verify with, as given to prune; by default those of the run.
        num_images: Test images to verify with.
        output: The folder to write; by default the run's own.
        json: Print model.json instead of a table.
    """
    from ovit_deploy.data import Preprocessing, load_data, sample_images
    from ovit_deploy.export import deployment
    from ovit_deploy.export.profile import load_profile

    declared = load_profile(profile)
    source = checkpoint.load_run(checkpoint.run_folder(run))
    model = models.build(models.Choice(source.spec, weights=source.weights))
    preprocessing = Preprocessing.of(model)
    test = load_data(data or source.facts.get("data_source")).test
    images, _ = sample_images(test, preprocessing, num_images)
    report = deployment.export(
        model,
        images=images,
        masks=source.masks(),
        profile=declared,
        facts=_facts(source, preprocessing),
        recipe_text=source.recipe_text,
        destination=output.expanduser() if output else source.folder / "deployment",
        progress=lambda step: render.note(f"{source.folder.name}: {step}"),
    )
    if json:
        render.as_json(report.card)
        return
    _show(report)
    render.next_command("ovit-deploy bench --engine deepsparse" + (f" --model {report.file}" if output else ""))


def _facts(run: Run, preprocessing: "Preprocessing") -> "Facts":
    from ovit_deploy.export.card import Facts

    return Facts(
        name=run.spec.name,
        kwargs=run.spec.kwargs,
        classes=run.spec.classes,
        preprocessing=preprocessing.as_dict(),
        run={"name": run.folder.name} | {key: run.facts[key] for key in RUN_FACTS if key in run.facts},
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
