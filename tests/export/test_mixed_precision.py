import pytest
import torch
from cases import images_and_labels, tiny_vit
from torch import Tensor, nn

from ovit_deploy.errors import ExportError
from ovit_deploy.export.mixed_precision import choose
from ovit_deploy.export.post_training import quantize
from ovit_deploy.quantization import is_quantized
from ovit_deploy.recipe.quantization import Quantization

CALIBRATION = [images_and_labels(32)]


@pytest.fixture(scope="module")
def spoilt() -> nn.Module:
    """One channel that fc1 of the second block reads is so large that rounding leaves nothing of the others."""
    model = tiny_vit().eval()
    with torch.no_grad():
        block = model.get_submodule("blocks.1")
        block.norm2.weight[3] = 1e5
        block.mlp.fc1.weight.mul_(20)
        block.mlp.fc1.weight[:, 3] = 1e-5
    return model


@pytest.fixture(scope="module")
def held_out(spoilt: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Images, and the float model's own answers for labels: it is right about all of them."""
    images, _ = images_and_labels(300, seed=2)
    with torch.no_grad():
        return [(images, spoilt(images).argmax(1))]


def test_the_layer_that_cannot_be_rounded_stays_in_float(spoilt: nn.Module, held_out: list) -> None:
    chosen, mixed = choose(spoilt, Quantization(attention_products=True), CALIBRATION, held_out, max_drop=8.0)
    assert mixed.ignore[0] == "blocks.1.mlp.fc1"
    assert mixed.drop <= 8.0
    assert len(mixed.sensitivity) == 12
    values = list(mixed.sensitivity.values())
    assert values == sorted(values, reverse=True)
    model, names = quantize(spoilt, chosen, CALIBRATION)
    assert is_quantized(model)
    assert len(names) == 12 - len(mixed.ignore)
    images, labels = held_out[0]
    with torch.no_grad():
        wrong = model(images).argmax(1) != labels
    assert 100 * float(wrong.float().mean()) == pytest.approx(mixed.drop)


def test_nothing_stays_in_float_where_nothing_has_to(spoilt: nn.Module, held_out: list) -> None:
    chosen, mixed = choose(spoilt, Quantization(), CALIBRATION, held_out, max_drop=100.0)
    assert chosen == Quantization()
    assert (mixed.ignore, mixed.sensitivity) == ((), {})


def test_a_limit_that_cannot_be_kept_is_told(spoilt: nn.Module, held_out: list) -> None:
    only = Quantization(submodules=("blocks.1.mlp.fc1", "blocks.1.mlp.fc2"), ignore=("blocks.1.mlp.fc2",))
    with pytest.raises(ExportError, match=r"no layer can be quantized within 0 points"):
        choose(spoilt, only, CALIBRATION, held_out, max_drop=0.0)
