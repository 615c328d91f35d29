"""Training with masks and quantizers together, into a run that says itself how to be rebuilt."""

import json

import pytest
import torch

from ovit_deploy import checkpoint, models
from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.data import ImageData, Preprocessing, eval_loader, load_data
from ovit_deploy.data.sources import ArrayImages
from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.finetune.run import Finished, run
from ovit_deploy.models import Choice
from ovit_deploy.quantization import FakeQuantize
from ovit_deploy.recipe.load import parse_recipe

SPEC = ModelSpec(
    "vit_tiny_patch16_224",
    {"img_size": 28, "patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2},
    (0.286,),
    (0.353,),
)
RECIPE = """
training: {batch_size: 32, learning_rate: 1e-3, augmentation: {crop_padding: 2}}
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 2}
  - !GlobalMagnitudePruningModifier
    {params: ["re:blocks.*(attn|mlp).*weight"], init_sparsity: 0.6, final_sparsity: 0.6, start_epoch: 0, end_epoch: 0,
     update_frequency: 1}
  - !QuantizationModifier
    {start_epoch: 1, num_calibration_steps: 1, disable_quantization_observer_epoch: 1.5, attention_products: true}
"""


@pytest.fixture(scope="module")
def data() -> ImageData:
    whole = load_data()
    train, test = (
        ArrayImages(split.images[:size], torch.tensor(split.labels[:size]).numpy())
        for split, size in ((whole.train, 128), (whole.test, 100))
    )
    return ImageData("few", train, test, whole.classes)


@pytest.fixture(scope="module")
def finished(data: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run(parse_recipe(RECIPE), Choice(SPEC), data, runs=tmp_path_factory.mktemp("runs"))


def test_the_file_alone_rebuilds_the_quantized_model_that_was_measured(finished: Finished, data: ImageData) -> None:
    choice = models.choose(None, checkpoint=finished.folder / "model.safetensors", pretrained=False)
    model = models.build(choice)
    quantizers = [module for module in model.modules() if isinstance(module, FakeQuantize)]
    assert len(quantizers) == 2 * 10 + 2 * 4  # two of each layer, four factors in each attention
    assert not any(quantizer.observing for quantizer in quantizers)
    again = evaluate(model, eval_loader(data.test, Preprocessing.of(model)))
    assert again.loss == pytest.approx(finished.facts["final"]["loss"], rel=1e-6)
    assert set(models.shapes(choice)) == {name for name, _ in model.named_parameters()}


def test_zeros_stay_zero_under_quantization(finished: Finished) -> None:
    weights = checkpoint.load_tensors(finished.folder / "model.safetensors")
    masks = checkpoint.load_run(finished.folder).masks()
    assert finished.facts["sparsity"]["prunable"] == pytest.approx(0.6, abs=1e-3)
    assert all((weights[name][~mask] == 0).all() for name, mask in masks.items())


def test_the_run_says_what_is_quantized(finished: Finished) -> None:
    facts = json.loads((finished.folder / "run.json").read_text())
    assert facts["quantization"]["attention_products"] is True
    assert facts["quantization"]["scheme"]["weights"]["strategy"] == "channel"


def test_a_quantized_checkpoint_trained_on_stays_quantized(finished: Finished, data: ImageData, tmp_path) -> None:
    text = (
        "training: {batch_size: 64}\nmodifiers:\n  - !EpochRangeModifier {start_epoch: 0, end_epoch: 0.5}\n"
        "  - !ConstantPruningModifier {params: __ALL_PRUNABLE__, start_epoch: 0}\n"
    )
    choice = models.choose(None, checkpoint=finished.folder / "model.safetensors", pretrained=False)
    again = run(parse_recipe(text), choice, data, runs=tmp_path)
    spec = checkpoint.load_run(again.folder).spec
    assert spec.quantization == finished.facts["quantization"]
