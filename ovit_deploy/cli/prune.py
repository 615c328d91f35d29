"""``ovit-deploy prune``: a trained model becomes sparse, by a recipe."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ovit_deploy.cli import common, lists, render, target
from ovit_deploy.cli.beginning import Beginning, Options, begin
from ovit_deploy.errors import OvitError, RecipeError
from ovit_deploy.finetune.tracking import TrackerName


def prune(
    *,
    recipe: str | None = None,
    model: str | None = None,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    data: str | None = None,
    name: str | None = None,
    sweep: str | None = None,
    target_latency: str | None = None,
    engine: str = "deepsparse",
    batch_size: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    threads: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    levels: str | None = None,
    recipe_arg: tuple[str, ...] = (),
    memory_budget: str | None = None,
    device: str | None = None,
    workers: int = 0,
    track: TrackerName | None = None,
    resume: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Prune and finetune a model by a recipe, into runs/NAME.

    Without --model and --data it works on the small ViT and the Fashion-MNIST images in this package.

    Example: ovit-deploy prune --recipe recipes/deit_75.yaml

    Args:
        recipe: A recipe file, or the name of a shipped one.
        model: A timm model name, or hf: and a folder that transformers saved.
        checkpoint: Its weights, a safetensors file.
        pretrained: Take timm's weights from the hub.
        data: fashion-mnist, a folder, an .npz file, or a timm data set.
        name: Of the run; by default the recipe's name and the time.
        sweep: Sparsities with commas between, such as 0.5,0.75,0.9: a run for each, NAME-50 and so on, from one pass
            over the gradients. For recipes that prune once, at the start.
        target_latency: A time, such as 12ms: the layers' sparsities are chosen for it, from measured latencies and the
            pruner's predicted losses; then the run is exported and timed.
        engine: What the time is meant on; options follow a colon: openvino:precision=bf16.
        batch_size: Images in that time.
        threads: Of the engine.
        levels: Sparsities that a layer may get, with commas between, besides none.
        recipe_arg: NAME=VALUE for a variable of the recipe, several with commas, or JSON; may be given several times.
        memory_budget: What pruning may use, such as 6GB; by default half of the free memory. Under torchrun that of
            each process.
        device: cpu, cuda or cuda:1; by default the first GPU, or the CPU where there is none. Under torchrun each
            process has a GPU of its own.
        workers: Processes that read and augment images; 0 does it between the steps.
        track: Tell this tracker, too, what metrics.jsonl records: into the run's folder. An extra of this package.
        resume: The name of a run that was cut off: go on with it from its last checkpoint.
        dry_run: Print the timeline and the matched layers, and stop.
        json: Print the facts of the run as JSON.
    """
    if target_latency is not None and (sweep is not None or resume is not None):
        other = "--sweep" if sweep is not None else "--resume"
        raise OvitError(
            f"--target-latency with {other}: these do not go together", "a run keeps its recipe: resume it alone"
        )
    wanted = lists.sparsities(sweep, "--sweep") if sweep is not None else ()
    if wanted and (dry_run or resume is not None):
        raise OvitError(
            f"--sweep with {'--dry-run' if dry_run else '--resume'}: these do not go together", "give one of them"
        )
    if wanted and common.started_rank() is not None:
        raise OvitError("--sweep under torchrun: a sweep runs in one process", "start it without torchrun")
    if target_latency is not None and common.started_rank() is not None:
        raise OvitError("--target-latency under torchrun: it measures in one process", "start it without torchrun")
    given = Options(
        recipe, recipe_arg, model, checkpoint, pretrained, data, name, memory_budget, device, workers, track
    )
    asked = begin(given, resume)
    read = asked.recipe
    if not read.prunes:
        raise RecipeError(f"{read.source}: prunes nothing", "add a pruning modifier, or use ovit-deploy train")
    if target_latency is not None:
        goal = target.goal_of(target_latency, engine, levels)
        target.prune_to(goal, asked, batch_size=batch_size, threads=threads, dry_run=dry_run, json=json)
        return
    if dry_run:
        common.show_plan(read, asked.choice)
        return
    if wanted:
        _sweep(asked, wanted, json=json)
        return
    common.carry_out(asked, json=json)
    if not json:
        render.next_command("ovit-deploy export --onnx")


def _sweep(asked: Beginning, sparsities: tuple[float, ...], *, json: bool) -> None:
    """A run for each sparsity under watch; tells how they ended."""
    from ovit_deploy.data import load_data
    from ovit_deploy.finetune.distributed import device_of
    from ovit_deploy.finetune.sweep import sweep

    device, images = device_of(asked.device), load_data(asked.data)
    with common.watching() as watchers:
        runs = sweep(
            asked.recipe,
            asked.choice,
            images,
            sparsities,
            name=asked.name,
            memory_budget=asked.memory_budget,
            watchers=watchers,
            device=device,
            num_workers=asked.workers,
            track=asked.track,
        )
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
