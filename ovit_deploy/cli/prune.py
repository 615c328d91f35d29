"""``ovit-deploy prune``: a trained model becomes sparse, by a recipe."""

from pathlib import Path

from ovit_deploy import models
from ovit_deploy.cli import common, render
from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.pruners import PruningModifier


def prune(
    *,
    recipe: str,
    model: str | None = None,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    data: str | None = None,
    name: str | None = None,
    recipe_arg: tuple[str, ...] = (),
    memory_budget: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Prune and finetune a model by a recipe, into runs/NAME.

    Without --model and --data it works on the small ViT and the Fashion-MNIST images in this package.

    Example: ovit-deploy prune --recipe recipes/deit_75.yaml

    Args:
        recipe: A recipe file, or the name of a shipped one.
        model: A timm model name.
        checkpoint: Its weights, a safetensors file.
        pretrained: Take timm's weights from the hub.
        data: fashion-mnist, a folder, an .npz file, or a timm data set.
        name: Of the run; by default the recipe's name and the time.
        recipe_arg: NAME=VALUE for a variable of the recipe, several with commas, or JSON; may be given several times.
        memory_budget: What pruning may use, such as 6GB; by default half of the free memory.
        dry_run: Print the timeline and the matched layers, and stop.
        json: Print the facts of the run as JSON.
    """
    budget = common.parse_bytes(memory_budget)
    read = common.read_recipe(recipe, recipe_arg)
    if not any(isinstance(modifier, PruningModifier) for modifier in read.modifiers):
        raise RecipeError(f"{read.source}: prunes nothing", "add a pruning modifier, or use ovit-deploy train")
    choice = models.choose(model, checkpoint=checkpoint, pretrained=pretrained, section=read.model)
    if dry_run:
        common.show_plan(read, choice)
        return
    common.carry_out(read, choice, data, name=name, memory_budget=budget, json=json)
    if not json:
        render.next_command("ovit-deploy export --onnx")
