"""``ovit-deploy train``: train a dense model by a recipe."""

from pathlib import Path

from ovit_deploy import models
from ovit_deploy.cli import common, render


def train(
    *,
    recipe: str,
    model: str | None = None,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    data: str | None = None,
    name: str | None = None,
    recipe_arg: tuple[str, ...] = (),
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Train a model by a recipe, into runs/NAME.

    The model is --model, else the recipe's own; without --checkpoint or --pretrained it starts from chance.

    Example: ovit-deploy train --recipe recipes/demo_dense.yaml --data fashion-mnist

    Args:
        recipe: A recipe file, or the name of a shipped one.
        model: A timm model name.
        checkpoint: Weights to start from, a safetensors file.
        pretrained: Start from timm's weights from the hub.
        data: fashion-mnist, a folder, an .npz file, or a timm data set.
        name: Of the run; by default the recipe's name and the time.
        recipe_arg: NAME=VALUE for a variable of the recipe, several with commas, or JSON; may be given several times.
        dry_run: Print the timeline, and stop.
        json: Print the facts of the run as JSON.
    """
    read = common.read_recipe(recipe, recipe_arg)
    choice = models.choose(model, checkpoint=checkpoint, pretrained=pretrained, section=read.model)
    if dry_run:
        common.show_plan(read, choice)
        return
    finished = common.carry_out(read, choice, data, name=name, memory_budget=None, json=json)
    if not json:
        render.next_command(
            f"ovit-deploy prune --recipe recipes/deit_75.yaml --checkpoint {finished.folder}/model.safetensors"
            + (f" --data {data}" if data else "")
        )
