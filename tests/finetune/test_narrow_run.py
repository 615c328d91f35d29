"""A run in which a ViT's embedding gets narrower while it trains, after heads and neurons went."""

from pathlib import Path

import onnx_ir
import onnxruntime as ort
import pytest
import torch
from finished_run import rebuilt
from run_to_kill import images

from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.data import Preprocessing, eval_loader
from ovit_deploy.errors import ModelError
from ovit_deploy.export.profile import load_profile
from ovit_deploy.export.to_onnx import to_onnx
from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.finetune.run import run
from ovit_deploy.models import Choice
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.structure import structure_of

SPEC = ModelSpec("vit_tiny_patch16_224", {"img_size": 16, "patch_size": 8, "embed_dim": 48, "depth": 2})
NARROW = """
training: {batch_size: 16}
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 1.5}
  - !HeadPruningModifier {final_sparsity: 0.3, start_epoch: 0, end_epoch: 0, saliency: magnitude}
  - !EmbeddingPruningModifier
    init_sparsity: 0.2
    final_sparsity: 0.5
    start_epoch: 0.25
    end_epoch: 0.75
    update_frequency: 0.5
    multiple_of: 8
    min_width: 8
  - !DistillationModifier {}
"""


def test_the_file_alone_rebuilds_the_narrower_model(tmp_path: Path) -> None:
    finished = run(parse_recipe(NARROW, source="r.yaml"), Choice(SPEC), images(), runs=tmp_path)
    model = rebuilt(finished)
    assert structure_of(model).as_dict() == finished.facts["structure"]
    assert finished.facts["structure"]["embed_dim"] == 24 and structure_of(model).num_heads == 4
    found = evaluate(model, eval_loader(images().test, Preprocessing.of(model)))
    assert found.loss == pytest.approx(finished.facts["final"]["loss"], abs=1e-5)
    some = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    onnx_ir.save(to_onnx(model, some, profile=load_profile("deepsparse")), tmp_path / "narrow.onnx")
    (logits,) = ort.InferenceSession(tmp_path / "narrow.onnx").run(None, {"images": some.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), model(some), rtol=0, atol=1e-5)


def test_other_networks_have_no_such_stream(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="known of timm's VisionTransformer only"):
        run(
            parse_recipe(NARROW.replace("!HeadP", "!SetWeightDecayModifier {weight_decay: 0} #"), source="r.yaml"),
            Choice(ModelSpec("test_resnet", {"img_size": 32})),
            images(),
            runs=tmp_path,
        )
