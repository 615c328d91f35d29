import pytest
import torch
from cases import images_and_labels, tiny_convnet, tiny_vit
from torch import nn

from ovit_deploy.errors import ModelError
from ovit_deploy.quantization import calibrate, insert, smooth
from ovit_deploy.recipe.quantization import Quantization

BATCHES = [images_and_labels(16)]


def with_an_outlier() -> nn.Module:
    """The same function as tiny_vit's, in which one channel of a LayerNorm's output is 1000 times the others."""
    model = tiny_vit().eval()
    with torch.no_grad():
        block = model.get_submodule("blocks.1")
        block.norm2.weight[3] *= 1000
        block.norm2.bias[3] *= 1000
        block.mlp.fc1.weight[:, 3] /= 1000
    return model


@torch.no_grad()
def error_of_rounding(model: nn.Module) -> float:
    wanted = model(BATCHES[0][0])
    insert(model, Quantization(submodules=("blocks.1.mlp.fc1",)))
    calibrate(model, BATCHES)
    return float((model(BATCHES[0][0]) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_smoothing_keeps_the_function_and_the_zeros(strength: float) -> None:
    model = with_an_outlier()
    weight = model.get_parameter("blocks.0.attn.qkv.weight")
    with torch.no_grad():
        weight[:, ::2] *= torch.rand(weight[:, ::2].shape) < 0.5
        weight[:, 5] = 0  # a channel that nobody reads
    zeros, wanted = weight == 0, model(BATCHES[0][0])
    assert smooth(model, BATCHES, strength) == 4
    assert torch.equal(weight == 0, zeros)
    torch.testing.assert_close(model(BATCHES[0][0]), wanted, rtol=1e-4, atol=1e-5)


def test_ranges_meet_where_the_formula_says() -> None:
    model = with_an_outlier()
    fc1 = model.get_submodule("blocks.1.mlp.fc1")
    seen: list[torch.Tensor] = []
    fc1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].abs().flatten(0, 1).amax(dim=0)))
    smooth(model, BATCHES, 0.5)
    seen.clear()
    model(BATCHES[0][0])
    torch.testing.assert_close(seen[0], fc1.weight.abs().amax(dim=0), rtol=1e-4, atol=1e-6)


def test_a_channel_larger_than_the_others_no_longer_spoils_them() -> None:
    smoothed = with_an_outlier()
    smooth(smoothed, BATCHES, 0.5)
    assert error_of_rounding(smoothed) < 0.2 * error_of_rounding(with_an_outlier())


def test_a_model_without_transformer_blocks_is_refused() -> None:
    with pytest.raises(ModelError, match="finds no LayerNorm"):
        smooth(tiny_convnet(), BATCHES, 0.5)
