"""Per-sample gradients in networks of every family, against autograd's of one image."""

import pytest
import timm
import torch
from family_cases import OTHERS, SMALL, small_model

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.gradients import check_against_autograd


@pytest.mark.parametrize("name", [*SMALL, *OTHERS])
def test_gradients_of_all_targets_are_those_of_autograd(name: str) -> None:
    model, targets = small_model(name)
    size = timm.data.resolve_model_data_config(model)["input_size"]
    check_against_autograd(model, targets, torch.randn(2, *size), torch.tensor([1, 2]))


def test_a_convolution_that_changes_its_weights_is_refused_by_name() -> None:
    model = timm.create_model("test_nfnet")
    with pytest.raises(PruningError, match="stages.0.0.conv1.weight belongs to a ScaledStdConv2d"):
        check_against_autograd(model, ["stages.0.0.conv1.weight"], torch.randn(2, 3, 64, 64), torch.tensor([1, 2]))
