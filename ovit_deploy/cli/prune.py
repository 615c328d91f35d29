"""``ovit-deploy prune``: a trained model becomes sparse, by a recipe."""

from pathlib import Path

from ovit_deploy.cli import common, lists, render
from ovit_deploy.cli.beginning import Options, begin
from ovit_deploy.errors import OvitError, RecipeError
from ovit_deploy.models import Choice
from ovit_deploy.recipe import Recipe
from ovit_deploy.recipe.sparsifier import Sparsifier
from ovit_deploy.recipe.structured import StructuredModifier


def prune(
    *,
    recipe: str | None = None,
    model: str | None = None,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    data: str | None = None,
    name: str | None = None,
    sweep: str | None = None,
    recipe_arg: tuple[str, ...] = (),
    memory_budget: str | None = None,
    resume: str | None = None,
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
        sweep: Sparsities with commas between, such as 0.5,0.75,0.9: a run for each, NAME-50 and so on, from one pass
            over the gradients. For recipes that prune once, at the start.
        recipe_arg: NAME=VALUE for a variable of the recipe, several with commas, or JSON; may be given several times.
        memory_budget: What pruning may use, such as 6GB; by default half of the free memory.
        resume: The name of a run that was cut off: go on with it from its last checkpoint.
        dry_run: Print the timeline and the matched layers, and stop.
        json: Print the facts of the run as JSON.
    """
    wanted = lists.sparsities(sweep, "--sweep") if sweep is not None else ()
    if wanted and (dry_run or resume is not None):
        raise OvitError(
            f"--sweep with {'--dry-run' if dry_run else '--resume'}: these do not go together", "give one of them"
        )
    given = Options(recipe, recipe_arg, model, checkpoint, pretrained, data, name, memory_budget)
    asked = begin(given, resume)
    read = asked.recipe
    if not any(isinstance(modifier, Sparsifier | StructuredModifier) for modifier in read.modifiers):
        raise RecipeError(f"{read.source}: prunes nothing", "add a pruning modifier, or use ovit-deploy train")
    if dry_run:
        common.show_plan(read, asked.choice)
        return
    if wanted:
        _sweep(read, asked.choice, data, wanted, name=name, memory_budget=asked.memory_budget, json=json)
        return
    common.carry_out(asked, json=json)
    if not json:
        render.next_command("ovit-deploy export --onnx")


def _sweep(
    recipe: Recipe,
    choice: Choice,
    data: str | None,
    sparsities: tuple[float, ...],
    *,
    name: str | None,
    memory_budget: int | None,
    json: bool,
) -> None:
    """A run for each sparsity under watch; tells how they ended."""
    from ovit_deploy.data import load_data
    from ovit_deploy.finetune.sweep import sweep

    images = load_data(data)
    with common.watching() as watchers:
        runs = sweep(recipe, choice, images, sparsities, name=name, memory_budget=memory_budget, watchers=watchers)
    if json:
        render.as_json([{"run": str(finished.folder), **finished.facts} for finished in runs])
        return
    rows = [
        (f"{done.facts['sparsity']['prunable']:.2%}", *common.accuracy_cells(done.facts["final"]), str(done.folder))
        for done in runs
    ]
    facts = runs[0].facts
    if facts["dense"]:
        rows.insert(0, ("dense", *common.accuracy_cells(facts["dense"]), ""))
    columns = ("zeros", "top-1", "95 % interval", "test images", "run")
    render.table(f"{facts['model']['name']} on {facts['data']}", columns, rows)
    render.next_command(f"ovit-deploy export --onnx --run {runs[-1].folder.name}")
