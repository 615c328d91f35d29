import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import fake_quantize

from ovit_deploy.errors import TrainingError
from ovit_deploy.quantization.fake_quant import FakeQuantize, affine, limits, rounded
from ovit_deploy.recipe.quantization import TensorScheme

SYMMETRIC = TensorScheme(symmetric=True, observer="min_max")
UNSIGNED = TensorScheme(observer="min_max")
numbers = st.floats(-1e3, 1e3, width=32)


@given(st.lists(numbers, min_size=2, max_size=30), st.booleans(), st.integers(2, 8))
def test_rounding_is_that_of_the_definition(values: list[float], symmetric: bool, num_bits: int) -> None:
    scheme = TensorScheme(num_bits=num_bits, symmetric=symmetric)
    x = torch.tensor(values)
    scale, zero_point = affine(x.min(), x.max(), scheme)
    got = rounded(x, scale, zero_point, scheme)
    wanted = fake_quantize(x, float(scale), int(zero_point), *limits(scheme))
    # A value in the middle between two integers may go to either: torch multiplies by the inverse of the scale.
    middle = ((x.double() / scale.double()) % 1 - 0.5).abs() < 1e-4
    away = (got - wanted).abs() - 1e-6 * wanted.abs()  # torch multiplies in float32
    assert ((away <= 1e-5 * scale) | (middle & (away <= 1.001 * scale))).all()


@given(numbers, numbers, st.booleans())
def test_zero_stays_exactly_zero(one: float, other: float, symmetric: bool) -> None:
    scheme = SYMMETRIC if symmetric else UNSIGNED
    scale, zero_point = affine(torch.tensor(min(one, other)), torch.tensor(max(one, other)), scheme)
    assert rounded(torch.zeros(1), scale, zero_point, scheme).item() == 0.0


def test_a_range_is_kept_to_half_a_step() -> None:
    x = torch.linspace(-0.3, 1.7, 1000)
    for scheme in (SYMMETRIC, UNSIGNED):
        scale, zero_point = affine(x.min(), x.max(), scheme)
        assert (rounded(x, scale, zero_point, scheme) - x).abs().max() <= 0.501 * scale


def test_nothing_but_zeros_has_the_scale_one() -> None:
    scale, zero_point = affine(torch.zeros(2), torch.zeros(2), SYMMETRIC)
    assert scale.tolist() == [1, 1]
    assert zero_point.tolist() == [0, 0]


def test_gradients_pass_inside_the_range_and_stop_outside() -> None:
    quantizer = FakeQuantize(SYMMETRIC)
    quantizer(torch.tensor([-1.0, 1.0]))
    quantizer.observing = False
    x = torch.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 0]


def test_channels_have_scales_of_their_own() -> None:
    weight = torch.stack([torch.linspace(-1, 1, 255), torch.linspace(-100, 100, 255)])
    quantizer = FakeQuantize(SYMMETRIC, num_channels=2, of_weight=True)
    torch.testing.assert_close(quantizer(weight), weight)  # 255 even steps are the grid itself
    assert quantizer.affine()[0].tolist() == pytest.approx([1 / 127, 100 / 127])


def test_test_images_are_not_observed() -> None:
    quantizer = FakeQuantize(UNSIGNED)
    quantizer(torch.ones(3))
    quantizer.eval()
    quantizer(torch.full((3,), 9.0))
    assert quantizer.high.item() == 1.0


def test_what_was_never_observed_is_told() -> None:
    with pytest.raises(TrainingError, match="never observed"):
        FakeQuantize(UNSIGNED).eval()(torch.ones(3))
