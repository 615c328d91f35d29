"""``ovit-deploy compare``: pruning methods against each other, at several sparsities."""

from pathlib import Path
from typing import TYPE_CHECKING

from ovit_deploy import checkpoint as checkpoints
from ovit_deploy import models
from ovit_deploy.cli import common, lists, render, typed
from ovit_deploy.errors import OvitError

if TYPE_CHECKING:
    from ovit_deploy.compare.recover import Recovery
    from ovit_deploy.compare.subject import Subject
    from ovit_deploy.data import ImageData
    from ovit_deploy.recipe import Recipe


def compare(
    *,
    methods: str = "ovit,fast_ovit,woodfisher,mfac,gradient_weight,magnitude,sparsegpt,wanda,obc",
    sparsities: str = "0.5,0.6,0.75,0.8,0.9",
    model: str | None = None,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    data: str | None = None,
    params: tuple[str, ...] = (),
    num_grads: int = 4096,
    finetune: float = 0,
    finetune_recipe: str = "recover",
    seed: int = 0,
    set: tuple[str, ...] = (),  # noqa: A002 - the option's name
    memory_budget: str | None = None,
    device: str | None = None,
    out: Path = Path("comparison"),
    json: bool = False,
) -> None:
    """Prune a model by several methods to several sparsities, and measure each: the paper's one-shot figure.

    Every finished cell is kept in OUT/cells.jsonl at once; the same command goes on where it was stopped. At the end
    stand OUT/results.json and OUT/figure.svg. Test images are looked at once a cell, for its top-1.

    Example: ovit-deploy compare --methods ovit,magnitude --sparsities 0.5,0.75,0.9

    Args:
        methods: Names with commas between: ovit, ovit_refined, ovit_cumulative, ovit_block4, fast_ovit, woodfisher,
            mfac, gradient_weight, magnitude, uniform_magnitude, sparsegpt, wanda, obc.
        sparsities: Fractions of zeros with commas between.
        model: A timm model name, or hf: and a folder that transformers saved.
        checkpoint: Its weights, a safetensors file.
        pretrained: Take timm's weights from the hub.
        data: fashion-mnist, a folder, an .npz file, or a timm data set.
        params: What is pruned, as params of a recipe; may be given several times. By default what
            ovit-deploy models lists for the model's family.
        num_grads: Calibration images: losses are measured on them, and no method looks at more.
        finetune: Epochs of training for every cell after pruning, and for the dense model.
        finetune_recipe: The schedule of that training; num_epochs is its length.
        seed: Of the choice of calibration images, and of training.
        set: METHOD.SETTING=VALUE, such as ovit.damping=1e-6; may be given several times.
        memory_budget: What pruning may use, such as 6GB; by default half of the free memory.
        device: cpu, cuda or cuda:1; by default the first GPU, or the CPU where there is none.
        out: The folder of results.
        json: Print the results as JSON.
    """
    budget, wanted = common.parse_bytes(memory_budget), lists.sparsities(sparsities, "--sparsities")
    names = lists.words(methods, "--methods")
    _check(finetune, num_grads)
    schedule = common.read_recipe(finetune_recipe, [f"num_epochs={finetune:g}"]) if finetune else None
    choice = models.choose(model, checkpoint=checkpoint, pretrained=pretrained)

    from ovit_deploy import device as devices
    from ovit_deploy.bench import hardware
    from ovit_deploy.compare import methods as known
    from ovit_deploy.compare import plot, report
    from ovit_deploy.compare.cells import Journal
    from ovit_deploy.compare.study import Study
    from ovit_deploy.compare.study import compare as run
    from ovit_deploy.compare.subject import subject_of
    from ovit_deploy.data import load_data

    limited = known.within(known.named(names), num_images=num_grads, memory_budget=budget)
    chosen = known.with_settings(limited, set)
    machine, images, where = hardware.describe(), load_data(data), devices.choose(device)
    subject = subject_of(choice, images, targets=params, num_images=num_grads, seed=seed, device=where)
    about = subject.about | {"training": _training(schedule)}
    recovery = _recovery(schedule, images, subject, seed)
    # seconds of two machines do not mix
    place = {"machine": {key: machine[key] for key in ("cpu", "usable_cores")} | {"device": devices.describe(where)}}
    study = Study(subject, Journal(out / "cells.jsonl", about | place), recovery, render.note)
    cells, failures = run(study, chosen, wanted)
    told = report.document(
        "compare",
        about,
        machine,
        typed.command_line(),
        cells=[cell.as_dict() for cell in cells],
        failures=report.failures_as_dicts(failures),
    )
    checkpoints.write(out / "results.json", report.as_text(told))
    after = f", {schedule.name} for {finetune:g} epochs" if schedule else ", one-shot"
    checkpoints.write(out / "figure.svg", plot.figure(cells, f"{about['model']} on {about['data']}{after}"))
    if json:
        render.as_json(told)
    else:
        render.table(f"{about['model']} on {about['data']}{after}", report.COLUMNS, [report.cell_row(c) for c in cells])
        columns, rows = report.accuracy_rows(cells)
        render.table("", columns, rows)
        render.line(f"wrote {out}/results.json and {out}/figure.svg")
    for failure in failures:
        where = "" if failure.sparsity is None else f" at {failure.sparsity:.4g}"
        render.error(f"{failure.method}{where}: {failure.error}", failure.hint)
    if failures:
        raise OvitError(
            f"{', '.join(failure.method for failure in failures)}: not all cells could be had",
            "mend what is told above; the same command goes on with what is missing",
        )


def _check(finetune: float, num_grads: int) -> None:
    if finetune < 0:
        raise OvitError(f"--finetune {finetune:g}: not a number of epochs", "give 0 or more")
    if num_grads < 1:
        raise OvitError(f"--num-grads {num_grads}: at least one image is needed", "for example 4096")


def _training(schedule: "Recipe | None") -> dict[str, object] | None:
    """What decides how every cell is trained, for the record."""
    if schedule is None:
        return None
    from ovit_deploy.recipe.write import write

    return {"recipe": schedule.name, "text": write(schedule)}


def _recovery(schedule: "Recipe | None", images: "ImageData", subject: "Subject", seed: int) -> "Recovery | None":
    from ovit_deploy.compare.recover import Recovery

    return None if schedule is None else Recovery(schedule, images, subject.model, seed)
