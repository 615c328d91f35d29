"""A whole run in which heads, neurons and a block go, then weights, then floats; and what is done with its file."""

import json
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from finished_run import exported, rebuilt
from run_to_kill import images

from ovit_deploy import models
from ovit_deploy.checkpoint import ModelSpec, load_run
from ovit_deploy.data import Preprocessing, eval_loader
from ovit_deploy.errors import ModelError
from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.finetune.run import Finished, run
from ovit_deploy.models import Choice
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.structure import macs, merging_of, structure_of

SPEC = ModelSpec(
    "vit_tiny_patch16_224",
    {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2},
)
HALF = """
training: {batch_size: 16, learning_rate: 1e-3}
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 1.5}
  - !DepthPruningModifier {final_sparsity: 0.3, start_epoch: 0, end_epoch: 0, num_grads: 32}
  - !HeadWidthPruningModifier {final_sparsity: 0.3, start_epoch: 0.25, end_epoch: 0.25, num_grads: 32, multiple_of: 8}
  - !DistillationModifier {}
"""
REST = """
  - !OViTPruningModifier
    params: ["re:blocks.*(attn|mlp).*weight"]
    init_sparsity: 0.75
    final_sparsity: 0.75
    start_epoch: 0.5
    end_epoch: 0.5
    update_frequency: 1
    fisher_block_size: 16
    num_grads: 32
  - !QuantizationModifier {start_epoch: 1, num_calibration_steps: 1}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run(parse_recipe(HALF + REST, source="r.yaml"), Choice(SPEC), images(), runs=tmp_path_factory.mktemp("runs"))


def test_the_file_alone_rebuilds_the_thinned_quantized_model(finished: Finished) -> None:
    model = rebuilt(finished)
    structure = structure_of(model)
    assert len(structure.blocks) == 2 and structure.as_dict() == finished.facts["structure"]
    assert sum(p.numel() for p in model.parameters()) == finished.facts["model"]["parameters"]
    found = evaluate(model, eval_loader(images().test, Preprocessing.of(model)))
    assert found.loss == pytest.approx(finished.facts["final"]["loss"], abs=1e-5)
    assert abs(finished.facts["sparsity"]["prunable"] - 0.75) < 1e-3
    lines = [line for line in finished.facts["prunings"] if line["event"] == "thin"]
    assert lines[1]["details"]["cost_after"] == macs(model).of(structure) <= 0.7 * lines[1]["details"]["cost_before"]


def test_it_is_exported_and_runs_in_onnx_runtime(finished: Finished, tmp_path: Path) -> None:
    some = torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    report = exported(finished, some, profile="onnxruntime_int8", to=tmp_path / "deployment")
    logits = ort.InferenceSession(report.file).run(["logits"], {"images": some[:1].numpy()})[0]
    assert logits.shape == (1, 4)
    card = json.loads((report.folder / "model.json").read_text())
    assert card["model"]["structure"] == finished.facts["structure"]
    assert card["sparsity"]["prunable"] == pytest.approx(finished.facts["sparsity"]["prunable"], abs=1e-3)


def test_tokens_merged_stay_so_in_the_checkpoint_and_in_integers(tmp_path: Path) -> None:
    merging = """
  - !TokenMergingModifier {tokens: 1, start_epoch: 0.5}
  - !QuantizationModifier {start_epoch: 1, num_calibration_steps: 1}
"""
    finished = run(parse_recipe(HALF + merging, source="r.yaml"), Choice(SPEC), images(), runs=tmp_path)
    model = rebuilt(finished)
    kept = [block["number"] for block in finished.facts["structure"]["blocks"]]
    assert merging_of(model) == finished.facts["token_merging"] == {str(number): 1 for number in kept}
    found = evaluate(model, eval_loader(images().test, Preprocessing.of(model)))
    assert found.loss == pytest.approx(finished.facts["final"]["loss"], abs=1e-5)
    some = torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    report = exported(finished, some, profile="onnxruntime_int8", to=tmp_path / "deployment")  # PyTorch, ONNX Runtime
    card = json.loads((report.folder / "model.json").read_text())
    assert card["model"]["token_merging"] == load_run(finished.folder).spec.token_merging


def test_a_thinned_model_is_thinned_again_and_keeps_its_blocks_numbers(tmp_path: Path) -> None:
    first = run(parse_recipe(HALF.split("  - !Depth")[0], source="d.yaml"), Choice(SPEC), images(), runs=tmp_path)
    assert first.facts["structure"] is None
    thin = HALF.replace("end_epoch: 1.5", "end_epoch: 0.5").replace("0.3, start_epoch: 0.25", "0.1, start_epoch: 0.25")
    once = run(parse_recipe(thin, source="o.yaml"), _from(first), images(), runs=tmp_path, name="once")
    twice = run(parse_recipe(thin, source="t.yaml"), _from(once), images(), runs=tmp_path, name="twice")
    numbers = [[block["number"] for block in done.facts["structure"]["blocks"]] for done in (once, twice)]
    assert len(numbers[0]) == 2 and len(numbers[1]) == 1 and set(numbers[1]) < set(numbers[0])


def test_a_file_whose_structure_is_not_its_own_is_refused(finished: Finished) -> None:
    weights = finished.folder / "model.safetensors"
    with pytest.raises(ModelError, match="not the weights of vit_tiny"):
        models.build(Choice(ModelSpec(SPEC.name, SPEC.kwargs | {"num_classes": 4}), weights=weights))


def _from(done: Finished) -> Choice:
    return models.choose(None, checkpoint=done.folder / "model.safetensors", pretrained=False)
