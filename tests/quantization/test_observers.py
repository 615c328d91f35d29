import pytest
import torch

from ovit_deploy.quantization.fake_quant import FakeQuantize, affine, rounded
from ovit_deploy.quantization.observers import OBSERVERS
from ovit_deploy.recipe.quantization import TensorScheme


def after(observer: str, *batches: torch.Tensor) -> tuple[float, float]:
    quantizer = FakeQuantize(TensorScheme(observer=observer))
    for batch in batches:
        quantizer.observe(batch)
    return quantizer.low.item(), quantizer.high.item()


def test_min_max_is_the_widest_range() -> None:
    assert after("min_max", torch.tensor([-1.0, 2.0]), torch.tensor([-3.0, 1.0])) == (-3, 2)


def test_a_moving_average_starts_with_the_first_batch() -> None:
    assert after("moving_average", torch.tensor([-1.0, 2.0])) == (-1, 2)
    assert after("moving_average", torch.tensor([-1.0, 2.0]), torch.tensor([-3.0, 1.0])) == pytest.approx((-1.02, 1.99))


def test_a_percentile_leaves_out_the_outlier_that_min_max_takes() -> None:
    values = torch.cat([torch.linspace(-1, 1, 40_000), torch.tensor([1000.0])])
    assert after("percentile", values) == pytest.approx((-1, 1), abs=1e-3)
    assert after("min_max", values) == (-1, 1000)


@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_rounds_with_no_more_error_than_min_max_by_channel(symmetric: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    x_CN = torch.randn(4, 2000, generator=draw)
    x_CN[:, 0] = torch.tensor([3.0, 30.0, 300.0, 3000.0])  # outliers: the last is not worth its range
    scheme = TensorScheme(num_bits=4, symmetric=symmetric)

    def rounding(values: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        return rounded(values, *affine(low, high, scheme), scheme)

    def errors(observer: str) -> torch.Tensor:
        return (rounding(x_CN, *OBSERVERS[observer].of_batch(x_CN, rounding)) - x_CN).square().mean(dim=1)

    assert (errors("mse") <= errors("min_max")).all()
    assert errors("mse")[1] < 0.9 * errors("min_max")[1]


def test_the_range_of_a_weight_follows_it() -> None:
    quantizer = FakeQuantize(TensorScheme(symmetric=True, observer="min_max"), of_weight=True)
    quantizer(torch.tensor([-4.0, 4.0]))
    quantizer(torch.tensor([-1.0, 1.0]))
    assert quantizer.high.item() == 1.0
