"""Per-sample gradients in networks of every family, against autograd's of one image."""

import warnings

import pytest
import timm
import torch
from family_cases import OTHERS, SMALL, small_model
from timm.layers import Conv2dSame
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.gradients import check_against_autograd


@pytest.mark.parametrize("name", [*SMALL, *OTHERS])
def test_gradients_of_all_targets_are_those_of_autograd(name: str) -> None:
    model, targets = small_model(name)
    size = timm.data.resolve_model_data_config(model)["input_size"]
    check_against_autograd(model, targets, torch.randn(2, *size), torch.tensor([1, 2]))


class Padded(nn.Module):
    """Convolutions whose padding is not a number; the image is 13 x 16, so that one side is padded more."""

    def __init__(self) -> None:
        super().__init__()
        self.even = Conv2dSame(3, 4, (3, 2), stride=2)
        self.strided = Conv2dSame(4, 8, 3, stride=2, groups=2)
        self.same = nn.Conv2d(8, 8, 4, padding="same", dilation=2)
        self.valid = nn.Conv2d(8, 10, 2, padding="valid")

    def forward(self, images: Tensor) -> Tensor:
        return self.valid(self.same(self.strided(self.even(images[:, :, :13]).tanh()).tanh()).tanh()).mean((2, 3))


def test_gradients_of_convolutions_that_pad_by_size() -> None:
    names = [f"{name}.weight" for name in ("even", "strided", "same", "valid")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: padding "same" of an even kernel copies
        check_against_autograd(Padded(), names, torch.randn(2, 3, 16, 16), torch.tensor([1, 2]))


def test_a_convolution_that_changes_its_weights_is_refused_by_name() -> None:
    model = timm.create_model("test_nfnet")
    with pytest.raises(PruningError, match="stages.0.0.conv1.weight belongs to a ScaledStdConv2d"):
        check_against_autograd(model, ["stages.0.0.conv1.weight"], torch.randn(2, 3, 64, 64), torch.tensor([1, 2]))
