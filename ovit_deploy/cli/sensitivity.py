"""``ovit-deploy sensitivity``: what pruning each layer alone does to the loss."""

from pathlib import Path
from typing import TYPE_CHECKING

from ovit_deploy import checkpoint as checkpoints
from ovit_deploy import models
from ovit_deploy.cli import common, lists, render, typed

if TYPE_CHECKING:
    from ovit_deploy.compare.sensitivity import Point


def sensitivity(
    *,
    sparsities: str = "0.5,0.6,0.75,0.8,0.9",
    measure: bool = False,
    model: str | None = None,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    data: str | None = None,
    params: tuple[str, ...] = (),
    num_grads: int = 4096,
    block_size: int = 192,
    damping: float = 1e-8,
    seed: int = 0,
    memory_budget: str | None = None,
    device: str | None = None,
    out: Path = Path("sensitivity"),
    json: bool = False,
) -> None:
    """Tell, for each layer and sparsity, by how much the loss grows when this layer alone is pruned.

    The prediction takes one pass over the gradients for all layers and sparsities; --measure prunes each and runs it
    over the calibration images, too. Test images are not looked at. OUT gets results.json and heatmap.svg.

    Example: ovit-deploy sensitivity --sparsities 0.5,0.75,0.9

    Args:
        sparsities: Fractions of zeros with commas between.
        measure: Measure loss and top-1 on the calibration images, too.
        model: A timm model name, or hf: and a folder that transformers saved.
        checkpoint: Its weights, a safetensors file.
        pretrained: Take timm's weights from the hub.
        data: fashion-mnist, a folder, an .npz file, or a timm data set.
        params: Which weights, as params of a recipe; may be given several times. By default what
            ovit-deploy models lists for the model's family.
        num_grads: Calibration images.
        block_size: Of the Fisher matrices.
        damping: Added to their diagonal.
        seed: Of the choice of calibration images.
        memory_budget: What Fisher matrices may use, such as 6GB; by default half of the free memory.
        device: cpu, cuda or cuda:1; by default the first GPU, or the CPU where there is none.
        out: The folder of results.
        json: Print the results as JSON.
    """
    budget, wanted = common.parse_bytes(memory_budget), lists.sparsities(sparsities, "--sparsities")
    choice = models.choose(model, checkpoint=checkpoint, pretrained=pretrained)

    from ovit_deploy import device as devices
    from ovit_deploy.bench import hardware
    from ovit_deploy.compare import report
    from ovit_deploy.compare.methods import settings
    from ovit_deploy.compare.sensitivity import sensitivity as run
    from ovit_deploy.compare.subject import subject_of
    from ovit_deploy.data import load_data
    from ovit_deploy.pruning import OViT

    method = OViT(block_size=block_size, num_grads=num_grads, damping=damping, memory_budget=budget)
    machine, images = hardware.describe(), load_data(data)
    where = devices.choose(device)
    subject = subject_of(choice, images, targets=params, num_images=num_grads, seed=seed, device=where)
    points = run(subject, method, wanted, measure=measure, report=render.note)
    told = report.document(
        "sensitivity",
        subject.about | {"settings": settings(method), "calibration_loss": subject.loss},
        machine,
        typed.command_line(),
        points=[vars(point) for point in points],
    )
    out.mkdir(parents=True, exist_ok=True)
    checkpoints.write(out / "results.json", report.as_text(told))
    title = f"{subject.about['model']} on {subject.about['data']}: one layer pruned"
    _draw(out, points, wanted, title)
    if json:
        render.as_json(told)
        return
    _show(points, wanted, title)
    render.line(f"wrote {out}/results.json and {out}/heatmap.svg")
    render.next_command("ovit-deploy compare --methods ovit,magnitude")


def _draw(out: Path, points: "list[Point]", sparsities: tuple[float, ...], title: str) -> None:
    """The heat-map: of what was measured where it was, else of the prediction."""
    from ovit_deploy.drawing import heatmap

    measured = points[0].measured_loss is not None
    rows = {
        layer: [point.predicted_loss if point.measured_loss is None else point.measured_loss for point in own]
        for layer, own in _by_layer(points).items()
    }
    legend = f"{'measured' if measured else 'predicted'} increase of the calibration loss"
    heads = [f"{100 * sparsity:g} %" for sparsity in sparsities]
    checkpoints.write(out / "heatmap.svg", heatmap.figure(rows, heads, title, legend))


def _by_layer(points: "list[Point]") -> "dict[str, list[Point]]":
    layers: dict[str, list[Point]] = {}
    for point in points:
        layers.setdefault(point.layer, []).append(point)
    return layers


def _show(points: "list[Point]", sparsities: tuple[float, ...], title: str) -> None:
    columns = ("layer", "weights", *(f"{sparsity:.4g}" for sparsity in sparsities))
    layers = _by_layer(points)
    kinds = {"predicted increase of the loss": lambda point: f"{point.predicted_loss:.2g}"}
    if points[0].measured_loss is not None:
        kinds["measured increase of the loss"] = lambda point: f"{point.measured_loss:.2g}"
        kinds["top-1 on the calibration images, %"] = lambda point: f"{100 * point.top1:.2f}"
    for kind, cell in kinds.items():
        rows = [(layer, f"{own[0].weights:,}", *map(cell, own)) for layer, own in layers.items()]
        render.table(f"{title}; {kind}", columns, rows)
