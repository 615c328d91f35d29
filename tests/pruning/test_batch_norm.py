import copy

import pytest
import torch
from cases import images_and_labels, tiny_convnet
from torch import Tensor, nn
from torch.nn import functional

from ovit_deploy.pruning.batch_norm import batch_norms, recalibrate
from ovit_deploy.quantization import freeze_batch_norm

SIZE = 8


def batches(num_samples: int, batch: int = SIZE) -> list[tuple[Tensor, Tensor]]:
    images, labels = images_and_labels(num_samples, dtype=torch.float64)
    return list(zip(images.split(batch), labels.split(batch), strict=True))


@pytest.fixture
def model() -> nn.Module:
    model = tiny_convnet().double()
    recalibrate(model, batches(24))
    with torch.no_grad():
        model.stem.weight[:4] *= 3
        model.stem.weight[4:] = 0
    return model


def test_statistics_are_the_means_over_batches(model) -> None:
    fed = batches(24)
    assert recalibrate(model, fed) == 1
    outputs = [functional.conv2d(images, model.stem.weight, stride=2, padding=1) for images, _ in fed]
    torch.testing.assert_close(model.norm.running_mean, torch.stack([o.mean((0, 2, 3)) for o in outputs]).mean(0))
    torch.testing.assert_close(model.norm.running_var, torch.stack([o.var((0, 2, 3)) for o in outputs]).mean(0))


def test_weights_modes_and_momentum_stay(model) -> None:
    model.train()
    model.grouped.eval()
    before = copy.deepcopy(dict(model.named_parameters()))
    recalibrate(model, batches(16))
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert model.norm.training
    assert not model.grouped.training
    assert model.norm.momentum == 0.1


def test_a_last_smaller_batch_does_not_count(model) -> None:
    recalibrate(model, batches(19))
    after_all = model.norm.running_mean.clone()
    recalibrate(model, batches(16))
    assert torch.equal(model.norm.running_mean, after_all)


def test_frozen_statistics_stay(model) -> None:
    freeze_batch_norm(model)
    before = {name: buffer.clone() for name, buffer in model.norm.named_buffers()}
    assert recalibrate(model, batches(16)) == 0
    assert all(torch.equal(before[name], buffer) for name, buffer in model.norm.named_buffers())


def test_a_model_without_batch_norm_sees_no_image() -> None:
    assert batch_norms(nn.Linear(2, 2)) == []
    assert recalibrate(nn.Linear(2, 2), iter([])) == 0
