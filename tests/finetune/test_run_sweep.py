import json

import pytest
import torch

from ovit_deploy.checkpoint import ModelSpec, load_tensors
from ovit_deploy.data import ImageData, load_data
from ovit_deploy.data.sources import ArrayImages
from ovit_deploy.errors import OvitError
from ovit_deploy.finetune.run import run
from ovit_deploy.finetune.sweep import sweep
from ovit_deploy.models import Choice
from ovit_deploy.recipe.load import load_recipe, parse_recipe

SPEC = ModelSpec(
    "vit_tiny_patch16_224",
    {"img_size": 28, "patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2},
    (0.286,),
    (0.353,),
)
TRAINING = """# A comment that stays.
training: {batch_size: 32, augmentation: {crop_padding: 2}}
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 1}
"""
PRUNING = """
  - !OViTPruningModifier
    params: ["re:blocks.*(attn|mlp).*weight"]
    init_sparsity: 0.5
    final_sparsity: 0.5
    start_epoch: 0
    end_epoch: 0
    update_frequency: 1
    fisher_block_size: 32
    num_grads: 64
"""


@pytest.fixture(scope="module")
def data() -> ImageData:
    whole = load_data()
    train, test = (
        ArrayImages(split.images[:size], torch.tensor(split.labels[:size]).numpy())
        for split, size in ((whole.train, 128), (whole.test, 50))
    )
    return ImageData("few", train, test, whole.classes)


def test_every_run_of_a_sweep_is_the_run_its_recipe_gives_alone(data, tmp_path) -> None:
    read = parse_recipe(TRAINING + PRUNING, source="r.yaml")
    finished = sweep(read, Choice(SPEC), data, [0.5, 0.875], name="s", runs=tmp_path)
    assert [done.folder.name for done in finished] == ["s-50", "s-87.5"]
    for done, sparsity in zip(finished, (0.5, 0.875), strict=True):
        own = load_recipe(done.folder / "recipe.yaml")
        assert own.modifiers[-1].final_sparsity == own.modifiers[-1].init_sparsity == sparsity
        assert own.text.startswith("# A comment that stays.")
        alone = run(own, Choice(SPEC), data, name=f"alone-{sparsity}", runs=tmp_path)
        found, expected = (load_tensors(each / "model.safetensors") for each in (done.folder, alone.folder))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert json.loads((done.folder / "run.json").read_text())["sparsity"]["prunable"] == pytest.approx(
            sparsity, abs=1e-4
        )


def test_nothing_is_done_when_one_of_the_runs_is_there_already(data, tmp_path) -> None:
    (tmp_path / "s-90").mkdir()
    with pytest.raises(OvitError, match="exists already"):
        sweep(parse_recipe(TRAINING + PRUNING), Choice(SPEC), data, [0.5, 0.9], name="s", runs=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["s-90"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TRAINING, "needs one pruning modifier, here are 0"),
        (TRAINING + PRUNING + PRUNING, "needs one pruning modifier, here are 2"),
        (TRAINING + PRUNING.replace("end_epoch: 0", "end_epoch: 1"), "prunes from epoch 0 to 1"),
        (TRAINING + PRUNING.replace("_epoch: 0", "_epoch: 1"), "one pruning at epoch 0"),
        (TRAINING + PRUNING + "    mask_type: '2:4'\n", "cannot be swept to 0.9"),
    ],
)
def test_a_recipe_that_cannot_be_swept_is_refused(data, tmp_path, text, told) -> None:
    with pytest.raises(OvitError, match=told):
        sweep(parse_recipe(text), Choice(SPEC), data, [0.5, 0.9], name="s", runs=tmp_path)
    assert list(tmp_path.iterdir()) == []
