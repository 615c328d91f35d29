"""Channels chosen on small networks: the budget is met exactly as counted, and what stays makes up for what goes."""

import copy

import pytest
import torch
from cases import images_and_labels, tiny_calibration
from channel_cases import network
from torch import nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import channels
from ovit_deploy.pruning.consumers import consumers_of
from ovit_deploy.pruning.gradients import sample_gradients
from ovit_deploy.pruning.method import write
from ovit_deploy.pruning.structured import Removal, Saliency, Settings
from ovit_deploy.structure.bill import Bill, bill_of
from ovit_deploy.structure.channels import Group, Slice
from ovit_deploy.structure.cutting import carry_out
from ovit_deploy.structure.dependencies import groups_of


def settings_of(saliency: Saliency, **more: float) -> Settings:
    return Settings(saliency, num_grads=40, **({"multiple_of": 8, "min_channels": 8} | more))


def removed(model: nn.Module, removal: Removal) -> nn.Module:
    thin = copy.deepcopy(model)
    write(thin, removal.weights)
    carry_out(thin, removal.kept)
    return thin


@pytest.mark.parametrize("saliency", ["obs", "magnitude"])
def test_the_budget_and_the_floors_are_met(saliency: Saliency) -> None:
    model = network("test_resnet")
    before = copy.deepcopy(model.state_dict())
    groups = groups_of(model)
    bill = bill_of(model, groups, "flops")
    budget = bill.of({}) // 2
    removal = channels.choose(model, settings_of(saliency), bill, budget, tiny_calibration())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    left = removal.details["channels"]
    thin = removed(model, removal)
    cost = bill_of(thin, (), "flops").of({})
    assert 0.9 * budget < cost <= budget
    assert cost == bill.of({group.name: group.count - left[group.name] for group in groups})
    assert all(count % 8 == 0 and count >= 8 for count in left.values())
    assert (removal.predicted_loss is None) == (saliency != "obs")
    assert thin(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


class Convolved(nn.Module):
    """A convolution whose channels two others read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(8, 6, 3, bias=False)
        self.head = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        return self.head((self.left(x).tanh() + self.right(x).tanh()).mean((2, 3)))


STEM = Group(
    "stem",
    (
        Slice("stem.weight", 0, torch.arange(8)[:, None]),
        Slice("stem.bias", 0, torch.arange(8)[:, None]),
        Slice("left.weight", 1, torch.arange(8)[:, None], reads=True),
        Slice("right.weight", 1, torch.arange(8)[:, None], reads=True),
    ),
)


def convolved() -> tuple[nn.Module, Bill]:
    torch.manual_seed(0)
    model = Convolved().eval()
    return model, bill_of(model, [STEM], "channels")


def test_copies_of_channels_are_made_up_for_in_all_layers_that_read_them() -> None:
    model, bill = convolved()
    with torch.no_grad():
        for parameter in model.stem.parameters():
            parameter[4:] = parameter[:4]
    settings = settings_of("obs", damp=1e-6, multiple_of=1, min_channels=1)
    removal = channels.choose(model, settings, bill, 4, tiny_calibration())
    (_, kept) = removal.kept["stem.weight"][0]
    assert sorted(int(channel) % 4 for channel in kept) == [0, 1, 2, 3]
    images, _ = images_and_labels(8)
    torch.testing.assert_close(removed(model, removal)(images), model(images), rtol=0, atol=1e-3)
    assert {"left.weight", "left.bias", "right.weight"} == set(removal.weights)


def test_a_channel_that_one_of_its_layers_needs_stays() -> None:
    model, bill = convolved()
    with torch.no_grad():
        model.left.weight[:, :4] *= 1e-3
        model.right.weight[:, 2:6] *= 1e-3
    removal = channels.choose(model, settings_of("obs", multiple_of=1, min_channels=1), bill, 6, tiny_calibration())
    (_, kept) = removal.kept["stem.weight"][0]
    assert not {2, 3} & set(kept.tolist())


@pytest.mark.parametrize("side", [5, 16])
def test_sums_over_patches_are_those_of_whole_gradients(side: int) -> None:
    """With few pixels by way of products of tokens, with many by way of gradients."""
    torch.manual_seed(0)
    model = Convolved().double().eval()
    images, labels = torch.randn(6, 3, side, side, dtype=torch.float64), torch.arange(6)
    calibration = tiny_calibration(6)
    calibration = type(calibration)(lambda: [(images, labels)], 6)
    consumer = consumers_of(model, {"left.weight": 9}, calibration, 6).consumers["left.weight"]
    found = []
    sample_gradients(
        model,
        ["left.weight"],
        images,
        labels,
        consume=lambda _, g: found.append(torch.cat([g.rows(0, 6), g.deltas_NTGO[:, :, 0].sum(1)[..., None]], 2)),
    )
    (g_NOI,) = found
    torch.testing.assert_close(consumer.a_II, (g_NOI.mT @ g_NOI).sum(0))
    torch.testing.assert_close(consumer.b_OO, (g_NOI @ g_NOI.mT).sum(0))


def test_what_cannot_be_is_refused() -> None:
    model, bill = convolved()
    with pytest.raises(PruningError, match="saliency obs needs calibration images"):
        channels.choose(model, settings_of("obs"), bill, 4, None)
    with pytest.raises(PruningError, match="the budget is 4"):
        channels.choose(model, settings_of("magnitude"), bill, 4, None)
    wide = Convolved()
    wide.left = nn.Conv2d(8, 2, 33)
    with pytest.raises(PruningError, match="too many for OBS"):
        channels.choose(wide, settings_of("obs"), bill_of(model, [STEM], "channels"), 4, tiny_calibration())
