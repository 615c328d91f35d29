"""``ovit-deploy evaluate``: top-1 of a model on the test images of a data set."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ovit_deploy import models
from ovit_deploy.checkpoint import load_run, run_folder
from ovit_deploy.cli import common, render
from ovit_deploy.cli.evaluate_export import Limits, evaluate_export
from ovit_deploy.errors import OvitError


def evaluate(
    *,
    run: str | None = None,
    model: str | None = None,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    data: str | None = None,
    device: str | None = None,
    engine: tuple[str, ...] = (),
    threads: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    timeout: float = 600.0,
    json: bool = False,
) -> None:
    """Measure top-1, with its 95 % interval, on the test images of a data set.

    Without --run, --model and --checkpoint it measures the newest run. With --engine it measures exported files, each
    in the engine's own process.

    Example: ovit-deploy evaluate --data fashion-mnist

    Example: ovit-deploy evaluate --engine onnxruntime --engine openvino

    Args:
        run: The name of a run.
        model: A timm model name, or hf: and a folder; with --engine an .onnx file that export wrote.
        checkpoint: Its weights, a safetensors file.
        pretrained: Take timm's weights from the hub.
        data: fashion-mnist, a folder, an .npz file, or a timm data set; with --engine by default those of the run.
        device: cpu, cuda or cuda:1; by default the first GPU, or the CPU where there is none.
        engine: Measure the export in this engine: onnxruntime, openvino, pytorch, ovit, deepsparse, or all that are
            here; may be given several times. Options follow a colon: openvino:precision=bf16.
        threads: Of each engine.
        timeout: Seconds that one step of an engine may take, building included.
        json: Print the result as JSON.
    """
    if run is not None and (model is not None or checkpoint is not None):
        raise OvitError("--run together with --model or --checkpoint", "give one of them")
    if engine:
        if checkpoint is not None or pretrained:
            raise OvitError("--engine runs exports", "give --run, or --model with an .onnx file; or leave out --engine")
        evaluate_export(engine, run, model, data, Limits(threads, timeout), json=json)
        return
    if model is None and checkpoint is None:
        checkpoint = load_run(run_folder(run)).weights
    choice = models.choose(model, checkpoint=checkpoint, pretrained=pretrained)

    from ovit_deploy import device as devices
    from ovit_deploy.data import Preprocessing, eval_loader, load_data
    from ovit_deploy.finetune.evaluate import evaluate as measure

    where = devices.choose(device)
    images = load_data(data)
    choice = models.completed(choice, classes=images.classes, channels=images.channels)
    network = models.build(choice).to(where)
    result = measure(network, eval_loader(images.test, Preprocessing.of(network)))
    zeros = sum(int((p == 0).sum()) for p in network.parameters()) / sum(p.numel() for p in network.parameters())
    facts = result.accuracy.as_dict() | {"loss": result.loss, "zeros": zeros}
    source = str(checkpoint or f"{model} ({'hub' if pretrained else 'random'} weights)")
    if json:
        render.as_json({"weights": source, "data": images.name, **facts})
        return
    render.table(
        f"{source} on {images.name}",
        ("model", "top-1", "95 % interval", "test images", "loss", "zeros"),
        [(choice.spec.name, *common.accuracy_cells(facts), f"{result.loss:.4f}", f"{zeros:.2%}")],
    )
