"""Short models and their zeros."""

import numpy as np
import onnx
import pytest
import torch
from cases import tiny_convnet, tiny_vit
from onnx import numpy_helper
from torch import nn

from ovit_deploy import models
from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.errors import ModelError
from ovit_deploy.explain.pieces import LAYERS, Piece, Workshop, blocks_of, kept, kinds, shortened

DRAW = np.random.default_rng(0)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    spec = ModelSpec("vit_tiny_patch16_224", {"img_size": 16, "patch_size": 8, "embed_dim": 32, "num_heads": 2})
    return Workshop(models.build(models.Choice(spec)), tmp_path_factory.mktemp("pieces"), batch_size=2, seed=0)


def weights(path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize(("pattern", "sparsity"), [("unstructured", 0.7), ("block4", 0.75), ("2:4", 0.5)])
def test_masks_have_the_sparsity_and_the_pattern(pattern, sparsity) -> None:
    mask_IO = kept((16, 10), sparsity, pattern, DRAW)
    assert (~mask_IO).sum() == round(sparsity * mask_IO.size)
    groups = mask_IO.reshape(4, 4, 10).sum(axis=1)
    if pattern == "block4":
        assert set(np.unique(groups)) <= {0, 4}
    if pattern == "2:4":
        assert (groups == 2).all()


def test_groups_that_do_not_divide_the_inputs_are_refused() -> None:
    with pytest.raises(ModelError, match="no whole number of groups"):
        kept((6, 4), 0.5, "block4", DRAW)


def test_blocks_of_one_shape_are_one_kind() -> None:
    model = tiny_vit()
    assert kinds(model) == [0, 0]
    blocks_of(model)[1].mlp.fc1 = nn.Linear(32, 64)
    blocks_of(model)[1].mlp.fc2 = nn.Linear(64, 32)
    assert kinds(model) == [0, 1]


def test_the_model_is_left_alone_and_its_copy_has_the_blocks_asked_for() -> None:
    model = tiny_vit()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    short = shortened(model, (1, 1, 1), part="all", seed=0)
    assert len(blocks_of(short)) == 3
    assert len(blocks_of(model)) == 2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("part", ["all", "without products", "linears", "half MLP"])
def test_every_part_of_a_block_runs(part) -> None:
    short = shortened(tiny_vit(), (0, 0), part=part, seed=0)
    assert short(torch.zeros(1, 3, 16, 16)).shape == (1, 10)


def test_a_model_without_such_blocks_is_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match="TinyConvNet has no blocks of"):
        Workshop(tiny_convnet(), tmp_path, batch_size=1, seed=0)


def test_a_file_has_zeros_in_the_layers_asked_for_and_in_no_others(workshop) -> None:
    found = weights(workshop.file(Piece((0,), zeros=(0.75, 0.0, 0.0, 0.5))))
    for layer, sparsity in zip(LAYERS, (0.75, 0.0, 0.0, 0.5), strict=True):
        assert (found[f"blocks.0.{layer}.weight"] == 0).mean() == sparsity
    assert (weights(workshop.file(Piece((0,))))["blocks.0.mlp.fc2.weight"] != 0).all()


def test_zeros_of_an_int8_file_are_its_zero_point(workshop) -> None:
    found = weights(workshop.file(Piece((0,), file="onnxruntime_int8", zeros=(0.75,) * 4)))
    weight_IO = found["blocks.0.attn.qkv.weight"]
    assert weight_IO.dtype == np.int8
    assert 0.75 <= (weight_IO == 0).mean() < 0.8
