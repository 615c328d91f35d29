"""What the verbs ``train`` and ``prune`` share: reading the recipe, watching the run, telling how it ended."""

import json as jsons
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovit_deploy import catalog, models
from ovit_deploy.cli import render
from ovit_deploy.errors import OvitError
from ovit_deploy.models import Choice
from ovit_deploy.recipe import Recipe, load_recipe, timeline
from ovit_deploy.recipe.overrides import read_overrides
from ovit_deploy.recipe.rates import describe
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.recipe.timeline import (
    Dated,
    Densify,
    Distill,
    Freeze,
    HoldZeros,
    LogSparsity,
    MergeTokens,
    Prune,
    Quantize,
    Regrow,
    Score,
    SetParameters,
    Thin,
    ThinLayers,
    Train,
    WeightDecay,
)
from ovit_deploy.selectors import prunable

if TYPE_CHECKING:
    from ovit_deploy.cli.beginning import Beginning
    from ovit_deploy.finetune.run import Finished, Watchers

_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def started_rank() -> int | None:
    """Which of several processes this is that torchrun started; None where it is the only one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        return None
    return int(os.environ["RANK"])


def read_recipe(name: str, arguments: Sequence[str]) -> Recipe:
    """The recipe called ``name``, with ``key=value`` arguments for its variables."""
    return load_recipe(catalog.find("recipes", name), overrides(arguments))


def overrides(arguments: Sequence[str]) -> dict[str, str]:
    """What ``--recipe-arg`` says, each as `read_overrides` takes it; of one name the last counts."""
    return {name: text for argument in arguments for name, text in read_overrides(argument).items()}


def model_arguments(given: Sequence[str]) -> dict[str, Any]:
    """What ``--model-arg`` says, by name; a value that is no JSON is a text.

    Raises:
        OvitError: one of them is not NAME=VALUE.
    """
    found = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name.isidentifier():
            raise OvitError(f"--model-arg {one}: not NAME=VALUE", "for example --model-arg img_size=32")
        try:
            found[name] = jsons.loads(value)
        except ValueError:
            found[name] = value
    return found


def shapes_of(model: str | None, checkpoint: Path | None) -> dict[str, tuple[int, ...]] | None:
    """Parameter shapes of the model that a command line names; none if it names none."""
    if model is None and checkpoint is None:
        return None
    return models.shapes(models.choose(model, checkpoint=checkpoint, pretrained=False))


def at_least_one(steps_per_epoch: int | None) -> None:
    """Refuse an epoch without steps."""
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise OvitError(f"--steps-per-epoch {steps_per_epoch}: not a number of steps", "give 1 or more")


def parse_bytes(text: str | None) -> int | None:
    """Bytes in ``6GB``, ``800MiB`` or ``123``."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?)?B?", text.strip().upper())
    if found is None:
        raise OvitError(f"--memory-budget {text}: not a size", "for example 6GB or 800MiB")
    return int(float(found[1]) * _UNITS[found[2] or ""])


def show_plan(recipe: Recipe, choice: Choice) -> None:
    """The dated timeline and the matched layers; nothing is trained."""
    shapes = models.shapes(choice)
    targets = resolve(recipe, shapes, choice.spec.name)
    plan = timeline(recipe)
    rows = [(f"{item.epoch:g}", *_describe(item, targets)) for item in plan.dated]
    rows += [(f"{rate.start:g}", "learning rate", describe(rate)) for rate in plan.rates]
    rows.sort(key=lambda row: float(row[0]))
    rows.append((f"{plan.num_epochs:g}", "end", ""))
    render.table(f"{recipe.name}: timeline", ("epoch", "action", "what"), rows)
    matched = sorted({name for names in targets.values() for name in names}, key=list(shapes).index)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    if matched:
        columns = ("tensors", "count", "shape", "weights each")
        render.table(f"{choice.spec.name}: matched layers", columns, alike(matched, shapes))
    if not targets:
        return
    total, chosen = sum(sizes.values()), sum(sizes[name] for name in matched)
    render.line(
        f"{chosen:,} of {total:,} weights are targets; {len(prunable(shapes)) - len(matched)} other matrices stay dense"
    )


def _describe(item: Dated, targets: dict[str, list[str]]) -> tuple[str, str]:
    match item.action:
        case Prune(modifier=modifier, sparsity=sparsity, place=place):
            kind = type(modifier).__name__.removesuffix("Modifier")
            return "prune", f"{kind} to {sparsity:.2%} of {len(targets[place])} tensors"
        case Thin(modifier=modifier, sparsity=sparsity):
            return "remove", modifier.describe(sparsity)
        case ThinLayers(modifier=modifier):
            return "remove", modifier.describe()
        case MergeTokens(modifier=modifier):
            return "merge", modifier.describe()
        case Score(place=place):
            return "score", f"how training moves {len(targets[place])} tensors"
        case Densify(place=place):
            return "densify", f"{len(targets[place])} tensors may grow dense"
        case Regrow(place=place, fraction=fraction):
            return "regrow", f"{fraction:.2%} of the kept weights of {len(targets[place])} tensors change place"
        case HoldZeros(place=place):
            return "hold zeros", f"of {len(targets[place])} tensors"
        case WeightDecay(value=value):
            return "weight decay", f"{value:g}"
        case Distill(modifier=None):
            return "distillation", "ends"
        case Distill(modifier=modifier):
            assert modifier is not None
            return "distillation", modifier.summary
        case SetParameters(place=place):
            return "set", f"the numbers of {len(targets[place])} tensors"
        case LogSparsity():
            return "log", "sparsity of every matrix"
        case Train(modifier=modifier, place=place, ends=ends):
            verb = "let learn" if modifier.trainable else "freeze"
            return verb, f"{'ends for' if ends else 'of'} {len(targets[place])} tensors"
        case Quantize(modifier=modifier):
            return "quantize", modifier.describe()
        case Freeze(what=what):
            return "freeze", what


def alike(names: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> list[tuple[str, ...]]:
    """One row for all tensors that differ only in a number of their name: blocks.*.attn.qkv.weight."""
    groups: dict[tuple[str, tuple[int, ...]], int] = {}
    for name in names:
        key = (re.sub(r"\b\d+\b", "*", name), tuple(shapes[name]))
        groups[key] = groups.get(key, 0) + 1
    return [
        (pattern, str(count), "x".join(map(str, shape)), f"{math.prod(shape):,}")
        for (pattern, shape), count in groups.items()
    ]


@contextmanager
def watching() -> Iterator["Watchers"]:
    """Watchers that draw a progress bar, or write a line an epoch where stderr is no terminal."""
    from ovit_deploy.finetune.run import Watchers

    with render.progress() as bar:
        task = bar.add_task("", total=None, visible=False)

        def step(done: Any) -> None:
            text = (
                f"epoch {done.epoch:.2f}  loss {done.loss:.3f}  train top-1 {done.train_top1:.1%}  "
                f"sparsity {done.sparsity:.1%}"
            )
            bar.update(task, description=text, completed=done.step, total=done.num_steps, visible=True)
            if not render.err.is_terminal and abs(done.epoch - round(done.epoch)) < 1e-9:
                render.note(text)

        yield Watchers(step=step, report=render.note)


def show_summary(finished: "Finished") -> None:
    """Accuracies with their intervals, sparsities, predicted and measured loss, time."""
    facts = finished.facts
    rows = [(label, *accuracy_cells(facts[label])) for label in ("dense", "final") if facts[label]]
    render.table(
        f"{facts['model']['name']} on {facts['data']}", ("model", "top-1", "95 % interval", "test images"), rows
    )
    if facts["dense"]:
        change = facts["final"]["top1"] / facts["dense"]["top1"] - 1
        render.line(f"relative change of top-1: {change:+.2%}")
    if facts["prunings"]:
        render.table(
            "prunings",
            ("method", "epoch", "sparsity", "predicted loss", "measured loss", "seconds"),
            [_pruning(line) for line in facts["prunings"]],
        )
        if facts["structure"]:
            render.line(_structure(facts))
        sparsity = facts["sparsity"]
        render.line(f"sparsity: {sparsity['prunable']:.2%} of prunable weights, {sparsity['all']:.2%} of all")
    if "damaged_images" in facts:
        render.line(
            f"left out: {facts['damaged_images']} damaged training images, named in quarantine.jsonl of the run"
        )
    render.line(f"time: {facts['seconds']:.0f} s    run: {finished.folder}")


def _structure(facts: dict[str, Any]) -> str:
    """What is left after parts were removed, in a line."""
    blocks = facts["structure"]["blocks"]
    heads, widths = (", ".join(str(block[key]) for block in blocks) for key in ("heads", "width"))
    size = f"{facts['model']['parameters']:,} parameters"
    return f"structure: {len(blocks)} blocks of heads {heads} and widths {widths}; {size}"


def accuracy_cells(facts: dict[str, Any]) -> tuple[str, str, str]:
    """Top-1, its 95 % interval and the number of images, for a table."""
    low, high = facts["interval95"]
    return f"{facts['top1']:.2%}", f"{low:.2%} to {high:.2%}", f"{facts['images']:,}"


def _pruning(line: dict[str, Any]) -> tuple[str, ...]:
    losses = (line["predicted_loss_increase"], line["measured_loss_increase"])
    return (
        line["method"],
        f"{line['epoch']:g}",
        f"{line['sparsity']:.2%}",
        *("-" if loss is None else f"{loss:+.2g}" for loss in losses),
        f"{line['seconds']:.1f}",
    )


def carry_out(asked: "Beginning", *, json: bool) -> "Finished":
    """Run the recipe under watch and tell how it ended."""
    from ovit_deploy.data import load_data
    from ovit_deploy.finetune.distributed import device_of, joined
    from ovit_deploy.finetune.run import Watchers, run

    device = device_of(asked.device)
    with joined(device) as ranks, watching() if ranks.is_first else nullcontext(Watchers()) as watchers:
        with ranks.in_turn():  # what is downloaded is there for the others
            images = load_data(asked.data)
        finished = run(
            asked.recipe,
            asked.choice,
            images,
            name=asked.name,
            memory_budget=asked.memory_budget,
            watchers=watchers,
            resume=asked.resume,
            device=device,
            num_workers=asked.workers,
            track=asked.track,
        )
    if json:
        render.as_json({"run": str(finished.folder), **finished.facts})
    else:
        show_summary(finished)
    return finished
