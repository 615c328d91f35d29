"""Networks of Hugging Face's transformers, with random weights, from a folder to the engines."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovit_deploy import families, hf, models
from ovit_deploy.checkpoint import ModelSpec, load_tensors, newest_run
from ovit_deploy.cli import main
from ovit_deploy.data import Preprocessing
from ovit_deploy.errors import ModelError
from ovit_deploy.export.profile import load_profile
from ovit_deploy.export.to_onnx import to_onnx
from ovit_deploy.selectors import match

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install '.[transformers]'"
)

TINY: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
IMAGE = {"image_size": 28, "patch_size": 7, "num_channels": 1}
RECIPE = f"""
training: {{batch_size: 64}}
modifiers:
  - !EpochRangeModifier {{start_epoch: 0, end_epoch: 0.02}}
  - !OViTPruningModifier
    params: ['{families.TRANSFORMERS.targets[0]}']
    init_sparsity: 0.75
    final_sparsity: 0.75
    start_epoch: 0
    end_epoch: 0
    update_frequency: 1
    num_grads: 64
  - !DistillationModifier {{start_epoch: 0}}
"""


def save(folder: Path, kind: str = "vit", *, weights: bool = True, **processor: Any) -> str:
    """A tiny network of that kind and its image processor, as transformers saves them; the name of the folder."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **TINY, **IMAGE, num_labels=10)
    if kind == "deit":  # has two networks that classify
        config.architectures = ["DeiTForImageClassificationWithTeacher"]
    if weights:
        transformers.AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    else:
        config.save_pretrained(folder)
    seen = {"size": {"height": 28, "width": 28}, "image_mean": [0.4], "image_std": [0.3]} | processor
    (folder / "preprocessor_config.json").write_text(json.dumps(seen))
    return f"hf:{folder}"


def command(*arguments: str) -> None:
    """What a user types; it must end well."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert not ended.value.code


@pytest.mark.parametrize("kind", hf.KINDS)
def test_a_network_answers_as_transformers_does_and_its_layers_are_found(kind: str, tmp_path: Path) -> None:
    choice = models.choose(save(tmp_path, kind), checkpoint=None, pretrained=False)
    assert choice.spec.name == f"hf:{kind}"
    network, images = models.build(choice), torch.randn(2, 1, 28, 28)
    original = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(network(images), original(pixel_values=images).logits)
    shapes = models.shapes(choice)
    names = match(families.targets_of(choice.spec.name, shapes), shapes)
    assert len(names) == 12
    assert not [name for name in names if "embeddings" in name or "classifier" in name]


def test_it_goes_from_the_folder_to_a_file_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    name = save(tmp_path / "network", image_mean=[0.5])
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    command("prune", "--recipe", "recipe.yaml", "--model", name)
    run = newest_run()
    masks = load_tensors(run / "masks.safetensors")
    assert len(masks) == 12
    for file in (tmp_path / "network").iterdir():
        file.unlink()  # the run needs the folder no more
    command("export", "--onnx")
    command("evaluate", "--engine", "onnxruntime", "--json")
    assert "top1" in capsys.readouterr().out
    card = json.loads((run / "deployment" / "model.json").read_text())
    assert card["verification"]["max_abs_difference"] < 1e-4
    weights = load_tensors(run / "model.safetensors")
    kept = sum(int(weights[layer].count_nonzero()) for layer in masks)
    assert kept == sum(int(mask.sum()) for mask in masks.values()) == sum(mask.numel() for mask in masks.values()) // 4


def test_its_graph_is_that_of_plain_attention(tmp_path: Path) -> None:
    network = models.build(models.choose(save(tmp_path), checkpoint=None, pretrained=False))
    graph = to_onnx(network, torch.randn(1, 1, 28, 28), profile=load_profile("deepsparse"))
    found = {node.op_type for node in graph.graph}
    assert {"MatMul", "Softmax", "Erf"} <= found  # eager attention, and GELU as DeepSparse fuses it
    assert "IsNaN" not in found


def test_without_weights_its_ends_fit_the_data(tmp_path: Path) -> None:
    choice = models.choose(save(tmp_path, weights=False), checkpoint=None, pretrained=False)
    network = models.build(models.completed(choice, classes=("a", "b", "c"), channels=3))
    assert network(torch.randn(1, 3, 28, 28)).shape == (1, 3)
    assert Preprocessing.of(network).input_size == (3, 28, 28)


@pytest.mark.parametrize(
    ("processor", "wanted"),
    [
        ({}, (28, "bilinear", 1.0, "squash")),
        ({"resample": 3, "size": 28}, (28, "bicubic", 1.0, "squash")),
        (
            {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"height": 28, "width": 28}},
            (28, "bilinear", 28 / 32, "center"),
        ),
    ],
)
def test_preprocessing_is_that_of_its_image_processor(processor: dict, wanted: tuple, tmp_path: Path) -> None:
    """Compared with what transformers makes of an image that is not square."""
    choice = models.choose(save(tmp_path, **processor), checkpoint=None, pretrained=False)
    seen = Preprocessing.of(models.outline(choice.spec))
    assert (seen.input_size[1], seen.interpolation, seen.crop_pct, seen.crop_mode) == wanted
    assert (seen.mean, seen.std) == ((0.4,), (0.3,))


def test_pixels_are_those_of_transformers(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 52), dtype=np.uint8)
    from PIL import Image

    choice = models.choose(save(tmp_path), checkpoint=None, pretrained=False)
    ours = Preprocessing.of(models.outline(choice.spec)).eval_transform()(Image.fromarray(image))
    theirs = transformers.ViTImageProcessor.from_pretrained(tmp_path)(image[..., None], return_tensors="pt")
    torch.testing.assert_close(ours, theirs["pixel_values"][0], rtol=0, atol=2 / 255 / 0.3)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", {"model_type": "swin"}, "a model of kind swin"),
        ("preprocessor_config.json", {"size": {"height": 28, "width": 14}}, "no square size of images"),
        ("preprocessor_config.json", {"size": 28, "rescale_factor": 1.0}, "wants pixels times 1"),
        ("preprocessor_config.json", None, "No such file"),
    ],
)
def test_what_is_not_known_is_refused_by_name(file: str, content: dict | None, message: str, tmp_path: Path) -> None:
    name = save(tmp_path)
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ModelError, match=re.escape(message)):
        models.choose(name, checkpoint=None, pretrained=False)


def test_weights_in_several_files_are_refused(tmp_path: Path) -> None:
    name = save(tmp_path, weights=False)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelError, match="not in one safetensors file"):
        models.choose(name, checkpoint=None, pretrained=False)


def test_an_encoder_without_a_classifier_is_refused(tmp_path: Path) -> None:
    name = save(tmp_path)
    transformers.ViTModel(transformers.ViTConfig(**TINY, **IMAGE)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_labels": 10}))
    choice = models.choose(name, checkpoint=None, pretrained=False)
    with pytest.raises(ModelError, match=r"has no classifier\.bias, classifier\.weight"):
        models.build(choice)


def test_a_checkpoint_tells_the_network_by_itself(tmp_path: Path) -> None:
    spec = models.choose(save(tmp_path), checkpoint=None, pretrained=False).spec
    assert ModelSpec.from_json(spec.to_json()) == spec
