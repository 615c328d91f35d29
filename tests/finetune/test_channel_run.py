"""A whole run on a ResNet in which channels go, then weights; cut off and resumed; and what is done with its file."""

import json
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from finished_run import exported, rebuilt
from run_to_kill import images

from ovit_deploy.checkpoint import ModelSpec, load_run
from ovit_deploy.data import Preprocessing, eval_loader
from ovit_deploy.errors import ModelError
from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.finetune.loop import Progress
from ovit_deploy.finetune.run import Finished, Watchers, run
from ovit_deploy.flops import flops
from ovit_deploy.models import Choice
from ovit_deploy.recipe.load import parse_recipe

SPEC = ModelSpec("test_resnet", {"img_size": 32})
RECIPE = """
training: {batch_size: 16, learning_rate: 1e-3, ema_decay: 0.9}
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 2}
  - !ChannelPruningModifier
    init_sparsity: 0.25
    final_sparsity: 0.5
    start_epoch: 0.25
    end_epoch: 0.75
    update_frequency: 0.5
    num_grads: 16
  - !GMPruningModifier
    params: ["re:layer.*conv.*weight"]
    init_sparsity: 0.5
    final_sparsity: 0.5
    start_epoch: 0.5
    end_epoch: 0.5
    update_frequency: 1
  - !DistillationModifier {}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run(parse_recipe(RECIPE, source="r.yaml"), Choice(SPEC), images(), runs=tmp_path_factory.mktemp("runs"))


def test_the_file_alone_rebuilds_the_thinned_network(finished: Finished) -> None:
    model = rebuilt(finished)
    assert sum(p.numel() for p in model.parameters()) == finished.facts["model"]["parameters"]
    found = evaluate(model, eval_loader(images().test, Preprocessing.of(model)))
    assert found.loss == pytest.approx(finished.facts["final"]["loss"], abs=1e-5)
    first, last = (line["details"] for line in finished.facts["prunings"] if line["event"] == "thin")
    assert last["cost_after"] == flops(model, []).total // 2 <= 0.5 * first["cost_before"]
    assert first["batch_norms_recalibrated"] > 0
    masks = load_run(finished.folder).masks()
    assert masks and all(mask.shape == model.get_parameter(name).shape for name, mask in masks.items())
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in masks.items())


def test_a_run_that_was_cut_off_after_a_removal_goes_on_to_the_same_weights(finished: Finished, tmp_path: Path) -> None:
    class Cut(Exception):  # noqa: N818
        pass

    def fall(done: Progress) -> None:
        if done.step == 6:
            raise Cut

    recipe = parse_recipe(RECIPE, source="r.yaml")
    with pytest.raises(Cut):
        run(recipe, Choice(SPEC), images(), runs=tmp_path, name="cut", watchers=Watchers(step=fall))
    again = run(recipe, Choice(SPEC), images(), runs=tmp_path, name="cut", resume=True)
    assert again.facts["resumed_at_steps"] and again.facts["structure"] == finished.facts["structure"]
    whole = rebuilt(finished).state_dict()
    assert all(torch.equal(whole[name], tensor) for name, tensor in rebuilt(again).state_dict().items())


def test_it_is_exported_and_runs_in_onnx_runtime(finished: Finished, tmp_path: Path) -> None:
    some = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    report = exported(finished, some, profile="onnxruntime", to=tmp_path / "deployment")
    logits = ort.InferenceSession(report.file).run(["logits"], {"images": some[:1].numpy()})[0]
    assert logits.shape == (1, 4)
    card = json.loads((report.folder / "model.json").read_text())
    assert card["model"]["structure"] == finished.facts["structure"]


def test_a_vision_transformer_is_told_what_to_use(tmp_path: Path) -> None:
    vit = ModelSpec("vit_tiny_patch16_224", {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 1})
    with pytest.raises(ModelError, match="use !HeadWidthPruningModifier"):
        run(parse_recipe(RECIPE.split("  - !GMP")[0], source="r.yaml"), Choice(vit), images(), runs=tmp_path)
