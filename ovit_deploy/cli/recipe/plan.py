"""``ovit-deploy recipe plan``: everything a recipe would do, and when."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ovit_deploy import checkpoint as checkpoints
from ovit_deploy.cli import common, render
from ovit_deploy.recipe import picture, planning, timeline
from ovit_deploy.recipe.planning import Event, Size
from ovit_deploy.recipe.targets import resolve


def plan(
    recipe: str,
    *,
    model: str | None = None,
    checkpoint: Path | None = None,
    recipe_arg: tuple[str, ...] = (),
    steps_per_epoch: int | None = None,
    plot: Path | None = None,
    json: bool = False,
) -> None:
    """Print every event of a recipe: its epoch and step, what it does, the sparsity and the learning rate then.

    With --model or --checkpoint it also counts the tensors and weights that are pruned.

    Example: ovit-deploy recipe plan deit_75 --steps-per-epoch 79 --plot deit_75.svg

    Args:
        recipe: A recipe file, or the name of a shipped one.
        model: A timm model name.
        checkpoint: A safetensors file whose parameters are the model's.
        recipe_arg: NAME=VALUE for a variable of the recipe, several with commas, or JSON; may be given several times.
        steps_per_epoch: Of the training to come, to date events in steps, too.
        plot: Write a picture of sparsity and learning rate to this SVG file.
        json: Print the events as JSON.
    """
    common.at_least_one(steps_per_epoch)
    read = common.read_recipe(recipe, recipe_arg)
    shapes = common.shapes_of(model, checkpoint)
    targets = None if shapes is None else resolve(read, shapes)
    told = planning.events(read, steps_per_epoch=steps_per_epoch, targets=targets, shapes=shapes)
    size = None if shapes is None or targets is None else planning.final_size(read, targets, shapes)
    if plot is not None:
        drawn = picture.figure(timeline(read), read.name, steps_per_epoch=steps_per_epoch or 100)
        checkpoints.write(plot, drawn)
        render.note(f"wrote {plot}")
    if json:
        render.as_json(_facts(told, size))
        return
    _show(read.name, told, size)
    render.next_command(f"ovit-deploy prune --recipe {recipe}")


def _facts(told: list[Event], size: Size | None) -> dict[str, Any]:
    return {"events": [asdict(event) for event in told], "pruned": None if size is None else asdict(size)}


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
    elif size is None:
        render.line("add --model or --checkpoint to count tensors and weights")


def _or_blank(number: int | None) -> str:
    return "" if number is None else str(number)
