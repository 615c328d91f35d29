"""SparseML's two structured modifiers in a run: zeros in whole filters, then layers without them."""

from pathlib import Path

import pytest
from finished_run import rebuilt
from run_to_kill import images

from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.errors import PruningError
from ovit_deploy.finetune.run import Finished, run
from ovit_deploy.models import Choice
from ovit_deploy.recipe.load import parse_recipe

RESNET = ModelSpec("test_resnet", {"img_size": 32})
VIT = ModelSpec("vit_tiny_patch16_224", {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2})
FILTERS = """
training: {batch_size: 16}
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 1}
  - !StructuredPruningModifier
    params: [PARAMS]
    param_groups: GROUPS
    init_sparsity: 0.25
    final_sparsity: 0.5
    start_epoch: 0.25
    end_epoch: 0.5
    update_frequency: 0.25
    mask_type: AXIS
  - !LayerThinningModifier
    param_group_dependency_map: {"PARAMS": DEPENDENT}
    structure_type: AXIS
    start_epoch: 0.5
"""


def thinned(spec: ModelSpec, runs: Path, params: str, dependent: str, axis: str = "filter") -> Finished:
    text = FILTERS.replace("PARAMS", params, 1).replace("PARAMS", params.replace(" ", ""))
    text = text.replace("GROUPS", f"[[{params}]]").replace("DEPENDENT", dependent).replace("AXIS", axis)
    return run(parse_recipe(text, source="r.yaml"), Choice(spec), images(), runs=runs)


def test_filters_go_from_all_layers_that_make_or_read_them(tmp_path: Path) -> None:
    made = "layer2.0.conv2.weight, layer2.0.downsample.1.weight"
    read = "[layer3.0.conv1.weight, layer3.0.downsample.1.weight, layer2.0.bn2.weight]"
    done = thinned(RESNET, tmp_path, made, read)
    model = rebuilt(done)
    assert model.layer2[0].conv2.out_channels == model.layer3[0].conv1.in_channels == 24
    assert model.layer2[0].bn2.num_features == 24
    lines = [line for line in done.facts["prunings"] if line["event"] == "thin"]
    assert lines[0]["details"]["removed"] == {"layer2.0.conv2": 24} and done.facts["sparsity"]["prunable"] == 0


@pytest.mark.parametrize("axis", ["filter", "channel"])
def test_neurons_of_a_vit_are_filters_of_one_layer_and_channels_of_the_next(axis: str, tmp_path: Path) -> None:
    pair = ["blocks.1.mlp.fc1.weight", "blocks.1.mlp.fc2.weight"]
    sparse, dependent = pair if axis == "filter" else reversed(pair)
    done = thinned(VIT, tmp_path, sparse, f"[{dependent}]", axis)
    assert [block["width"] for block in done.facts["structure"]["blocks"]] == [96, 48]
    assert rebuilt(done).blocks[1].mlp.fc2.in_features == 48


@pytest.mark.parametrize(
    ("spec", "params", "dependent", "told"),
    [
        (RESNET, "layer2.0.conv2.weight", "[layer3.0.conv1.weight]", "layer2.0.downsample.1.weight, layer3.0.downs"),
        (RESNET, "layer1.0.conv1.weight", "[layer1.0.conv2.weight, fc.weight]", "fc.weight not of them"),
        (RESNET, "fc.weight", "[layer1.0.conv2.weight]", "cannot be removed"),
        (RESNET, "layer1.0.conv1.weight", "[nowhere.weight]", "the model has no nowhere.weight"),
        (VIT, "blocks.0.attn.qkv.weight", "[blocks.0.attn.proj.weight]", "cannot be removed: attention"),
    ],
)
def test_a_map_that_the_model_does_not_bear_out_is_refused(
    spec: ModelSpec, params: str, dependent: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(PruningError, match=told):
        thinned(spec, tmp_path, params, dependent)
