"""Top-1 through an engine's process, and ``evaluate --engine`` on a real export."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from ovit_deploy import checkpoint, models
from ovit_deploy.cli import main
from ovit_deploy.data import Preprocessing, eval_loader, load_data, sample_images
from ovit_deploy.engines import environments
from ovit_deploy.engines.accuracy import top1
from ovit_deploy.engines.process import EngineProcess
from ovit_deploy.export.card import Facts
from ovit_deploy.export.deployment import export
from ovit_deploy.export.profile import load_profile
from ovit_deploy.finetune.evaluate import evaluate as measure


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_every_image_counts_once_whatever_the_batches(engine: str, product: Path) -> None:
    images = np.random.default_rng(0).standard_normal((7, 12)).astype(np.float32)
    with EngineProcess(engine, environments.prepare(engine, print), timeout_s=120) as process:
        logits = images @ onnx.numpy_helper.to_array(onnx.load(product).graph.initializer[0])
        labels = logits.argmax(axis=1)
        labels[[1, 5]] = (labels[[1, 5]] + 1) % 5
        batches = [(images[:3], labels[:3]), (images[3:], labels[3:])]  # neither is a multiple of two
        assert top1(process, product, batches, batch_size=2, threads=1) == (5, 7)


def evaluate(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", *arguments])
    return int(exit_.value.code or 0)


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    """The shipped model's export, beside a folder of 60 images with names of their own for its classes."""
    spec = checkpoint.read_header(models.EMBEDDED).spec
    assert spec is not None
    model = models.build(models.Choice(spec, weights=models.EMBEDDED))
    data, preprocessing = load_data(), Preprocessing.of(model)
    for number in range(60):
        image, label = data.test[number]
        for split in ("train", "test"):
            folder = tmp_path / "images" / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{number}.png")
    facts = Facts(spec.name, spec.kwargs, tuple("0123456789"), preprocessing.as_dict())
    images, _ = sample_images(data.test, preprocessing, 8)
    profile, destination = load_profile("deepsparse"), tmp_path / "deployment"
    export(model, images=images, masks={}, profile=profile, facts=facts, recipe_text="", destination=destination)
    return destination


def test_the_file_is_measured_in_each_engine_and_one_that_fails_harms_no_other(
    deployment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(deployment.parent)
    named = [argument for engine in ("pytorch", "onnxruntime", "openvino") for argument in ("--engine", engine)]
    assert evaluate("--model", "deployment/model.onnx", *named, "--data", "images", "--json") == 1
    shown = capsys.readouterr()
    told = json.loads(shown.out)["engines"]
    assert "pytorch runs checkpoints" in told["pytorch"]["error"]
    assert "pytorch runs checkpoints" in shown.err
    model = models.build(models.choose(None, checkpoint=None, pretrained=False))
    loader = eval_loader(load_data("images").test, Preprocessing.of(model))
    expected = measure(model, loader).accuracy.as_dict()
    assert expected["images"] == 60
    assert told["onnxruntime"] == told["openvino"] == expected | {"interval95": list(expected["interval95"])}


def test_bench_has_the_top1_of_an_export_on_some_of_its_test_images(
    deployment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(deployment.parent)
    model = ("--model", "deployment/model.onnx", "--data", "images")
    for count in ("20", "all"):
        with pytest.raises(SystemExit) as left:
            main(["bench", *model, "--top1", count, "--iterations", "2", "--allow-noise", "--output", f"{count}.json"])
        assert left.value.code == 0
    some, every = (json.loads(Path(f"{count}.json").read_text())["rows"][0]["accuracy"] for count in ("20", "all"))
    assert (some["images"], some["data"]) == (20, "20 of 60 test images of images")
    network = models.build(models.choose(None, checkpoint=None, pretrained=False))
    loader = eval_loader(load_data("images").test, Preprocessing.of(network))
    assert (every["images"], every["correct"]) == (60, measure(network, loader).accuracy.correct)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--engine", "onnxruntim"), "no engine 'onnxruntim'"),
        (("--engine", "openvino:precision=f8"), "precision must be f32 or bf16"),
        (("--engine", "onnxruntime", "--checkpoint", "x.safetensors"), "--engine runs exports"),
        (("--engine", "onnxruntime"), "ovit-deploy export --onnx"),
        (("--engine", "onnxruntime", "--model", "none.onnx"), "no whole model.json beside it"),
    ],
)
def test_a_mistake_is_one_line_with_a_remedy(
    arguments: tuple[str, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate(*arguments) == 1
    assert told in capsys.readouterr().err
