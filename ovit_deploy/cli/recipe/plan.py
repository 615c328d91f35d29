"""``ovit-deploy recipe plan``: everything a recipe would do, and when."""

import math
from dataclasses import asdict
from pathlib import Path

from ovit_deploy import checkpoint as checkpoints
from ovit_deploy import models
from ovit_deploy.cli import common, render
from ovit_deploy.cli.recipe import estimate
from ovit_deploy.models import Choice
from ovit_deploy.recipe import Recipe, picture, planning, timeline
from ovit_deploy.recipe.planning import Event, Size, Targets
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.selectors import Shapes


def plan(
    recipe: str,
    *,
    model: str | None = None,
    checkpoint: Path | None = None,
    recipe_arg: tuple[str, ...] = (),
    steps_per_epoch: int | None = None,
    plot: Path | None = None,
    measure: bool = False,
    data: str | None = None,
    memory_budget: str | None = None,
    json: bool = False,
) -> None:
    """Print every event of a recipe: its epoch and step, what it does, the sparsity and the learning rate then.

    With --model or --checkpoint it also counts the weights that are pruned, bytes of the files, and FLOPs. With
    --measure it also tells how long the run takes and how much memory, by a rehearsal: a few steps of each kind and a
    few images for each pruner. That takes about as long as three prunings; the result is kept, and told at later calls.

    Example: ovit-deploy recipe plan deit_75 --measure

    Args:
        recipe: A recipe file, or the name of a shipped one.
        model: A timm model name, or hf: and a folder that transformers saved.
        checkpoint: A safetensors file whose parameters are the model's.
        recipe_arg: NAME=VALUE for a variable of the recipe, several with commas, or JSON; may be given several times.
        steps_per_epoch: Of the training to come, to date events in steps, too.
        plot: Write a picture of sparsity and learning rate to this SVG file.
        measure: Rehearse the run on this machine. Without --model, --checkpoint and --data on those of this package.
        data: The images of the run, as for prune.
        memory_budget: What pruning may use, as for prune.
        json: Print all of it as JSON.
    """
    common.at_least_one(steps_per_epoch)
    read = common.read_recipe(recipe, recipe_arg)
    choice = None
    if measure or model is not None or checkpoint is not None:
        choice = models.choose(model, checkpoint=checkpoint, pretrained=False, section=read.model)
    shapes = None if choice is None else models.shapes(choice)
    targets = None if shapes is None else resolve(read, shapes)
    told = planning.events(read, steps_per_epoch=steps_per_epoch, targets=targets, shapes=shapes)
    size = None if shapes is None or targets is None else planning.final_size(read, targets, shapes)
    costs = None if choice is None or targets is None or shapes is None else _flops(read, choice, targets, shapes)
    found = None
    if choice is not None:
        asked = estimate.Asked(read, choice, data, common.parse_bytes(memory_budget))
        found = estimate.measured(asked) if measure else estimate.known(asked)
    if plot is not None:
        drawn = picture.figure(timeline(read), read.name, steps_per_epoch=steps_per_epoch or 100)
        checkpoints.write(plot, drawn)
        render.note(f"wrote {plot}")
    if json:
        render.as_json(
            {
                "events": [asdict(event) for event in told],
                "pruned": None if size is None else asdict(size),
                "flops": costs,
                "estimate": found,
            }
        )
        return
    _show(read.name, told, size)
    if costs is not None:
        dense, sparse = costs["dense"], costs["sparse"]
        render.line(f"{dense / 1e9:.3g} GFLOPs an image, {sparse / 1e9:.3g} without zeros, if all layers get as many")
    if found is not None:
        estimate.show(found)
    elif choice is not None:
        render.line("add --measure to rehearse the run: its time and its memory")
    render.next_command(f"ovit-deploy prune --recipe {recipe}")


def _flops(recipe: Recipe, choice: Choice, targets: Targets, shapes: Shapes) -> dict[str, float]:
    """Of one image: of the dense model, and without the products with zeros."""
    from ovit_deploy.flops import flops

    sparsities = planning.final_sparsities(recipe, targets)
    counted = flops(models.outline(choice.spec), sparsities)
    saved = sum(counted.per_weight[name] * math.prod(shapes[name]) * sparsity for name, sparsity in sparsities.items())
    return {"dense": counted.total, "sparse": counted.total - saved}


def _show(name: str, told: list[Event], size: Size | None) -> None:
    columns = {
        "epoch": [f"{event.epoch:g}" for event in told],
        "step": [_or_blank(event.step) for event in told],
        "action": [event.action for event in told],
        "what": [event.what for event in told],
        "tensors": [_or_blank(event.tensors) for event in told],
        "rate": [f"{event.learning_rate:.3g}" for event in told],
    }
    shown = {column: cells for column, cells in columns.items() if any(cells)}
    render.table(f"{name}: plan", tuple(shown), list(zip(*shown.values(), strict=True)))
    if size is not None and size.weights:
        left = f"{size.kept:,} of {size.weights:,} weights in {size.tensors} pruned tensors are left"
        render.line(f"{left} ({1 - size.kept / size.weights:.2%} zeros)")
        files = (
            f"model.safetensors {size.dense_bytes / 1e6:.1f} MB and masks.safetensors {size.mask_bytes / 1e6:.1f} MB"
        )
        render.line(f"{files}; the kept weights alone, with a bit a weight for where, {size.sparse_bytes / 1e6:.1f} MB")
    elif size is None:
        render.line("add --model or --checkpoint to count tensors and weights")


def _or_blank(number: int | None) -> str:
    return "" if number is None else str(number)
