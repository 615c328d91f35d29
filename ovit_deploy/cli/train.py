"""``ovit-deploy train``: train a dense model by a recipe."""

from pathlib import Path

from ovit_deploy.cli import common, render
from ovit_deploy.cli.beginning import Options, begin
from ovit_deploy.finetune.tracking import TrackerName


def train(
    *,
    recipe: str | None = None,
    model: str | None = None,
    model_arg: tuple[str, ...] = (),
    checkpoint: Path | None = None,
    pretrained: bool = False,
    data: str | None = None,
    name: str | None = None,
    recipe_arg: tuple[str, ...] = (),
    device: str | None = None,
    workers: int = 0,
    track: TrackerName | None = None,
    resume: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Train a model by a recipe, into runs/NAME.

    The model is --model, else the recipe's own; without --checkpoint or --pretrained it starts from chance.

    Example: ovit-deploy train --recipe recipes/demo_dense.yaml --data fashion-mnist

    Args:
        recipe: A recipe file, or the name of a shipped one.
        model: A timm model name, or hf: and a folder that transformers saved.
        model_arg: NAME=VALUE that timm is told besides, such as img_size=32 or depths=[2,2,2]; may be given several
            times.
        checkpoint: Weights to start from, a safetensors file.
        pretrained: Start from timm's weights from the hub.
        data: fashion-mnist, a folder, an .npz file, or a timm data set.
        name: Of the run; by default the recipe's name and the time.
        recipe_arg: NAME=VALUE for a variable of the recipe, several with commas, or JSON; may be given several times.
        device: cpu, cuda or cuda:1; by default the first GPU, or the CPU where there is none. Under torchrun each
            process has a GPU of its own.
        workers: Processes that read and augment images; 0 does it between the steps.
        track: Tell this tracker, too, what metrics.jsonl records: into the run's folder. An extra of this package.
        resume: The name of a run that was cut off: go on with it from its last checkpoint.
        dry_run: Print the timeline, and stop.
        json: Print the facts of the run as JSON.
    """
    given = Options(
        recipe,
        recipe_arg,
        model,
        checkpoint,
        pretrained,
        data,
        name,
        device=device,
        workers=workers,
        track=track,
        model_arg=model_arg,
    )
    asked = begin(given, resume)
    if dry_run:
        common.show_plan(asked.recipe, asked.choice)
        return
    finished = common.carry_out(asked, json=json)
    if not json:
        render.next_command(
            f"ovit-deploy prune --recipe recipes/deit_75.yaml --checkpoint {finished.folder}/model.safetensors"
            + (f" --data {asked.data}" if asked.data else "")
        )
