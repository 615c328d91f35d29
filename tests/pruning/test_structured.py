"""Heads, neurons and blocks chosen on small networks, where it can be checked what they cost."""

import copy
from dataclasses import replace

import pytest
import torch
from cases import tiny_calibration, tiny_vit
from torch import nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import Calibration, depth, head_width
from ovit_deploy.pruning.consumers import consumers_of
from ovit_deploy.pruning.gradients import sample_gradients
from ovit_deploy.pruning.method import write
from ovit_deploy.pruning.ranks import ALONE, Ranks
from ovit_deploy.pruning.structured import Budget, Removal, Saliency, Settings
from ovit_deploy.structure import macs, remove, structure_of

SALIENCIES = ("obs", "taylor", "magnitude")


def half(model: nn.Module, share: float = 0.5) -> Budget:
    costs = macs(model)
    cost = costs.of(structure_of(model))
    return Budget(costs, cost, round(cost * share))


def settings_of(saliency: Saliency) -> Settings:
    return Settings(saliency, num_grads=40, multiple_of=8, min_width=16)


def removed(model: nn.Module, removal: Removal) -> nn.Module:
    thin = copy.deepcopy(model)
    write(thin, removal.weights)
    remove(thin, removal.kept)
    return thin


@pytest.mark.parametrize("saliency", SALIENCIES)
def test_heads_and_widths_meet_the_budget_and_the_floors(saliency: Saliency) -> None:
    model = tiny_vit()
    before = copy.deepcopy(model.state_dict())
    removal = head_width.choose(model, ("heads", "neurons"), settings_of(saliency), half(model), tiny_calibration())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    thin = removed(model, removal)
    structure, budget = structure_of(thin), half(model)
    assert budget.budget - budget.prices.neurons(8) < macs(thin).of(structure) <= budget.budget
    assert all(block.width % 8 == 0 and block.width >= 16 and block.heads >= 1 for block in structure.blocks)
    assert (removal.predicted_loss is None) == (saliency != "obs")


def test_without_damping_what_never_acts_is_removed_for_nothing() -> None:
    model = tiny_vit()
    dead = torch.arange(0, 128, 2)
    with torch.no_grad():
        model.blocks[0].mlp.fc2.weight[:, dead] = 0
        model.blocks[1].attn.proj.weight[:, :16] = 0
    images, _ = next(iter(tiny_calibration().batches()))
    costs = macs(model)
    cost = costs.of(structure_of(model))
    budget = Budget(costs, cost, cost - 64 * costs.neuron - costs.head)
    for saliency in ("obs", "taylor"):
        removal = head_width.choose(model, ("heads", "neurons"), settings_of(saliency), budget, tiny_calibration())
        assert removal.kept.heads == {0: (0, 1), 1: (1,)}
        assert set(removal.kept.neurons[0]) == set(range(1, 128, 2))
        torch.testing.assert_close(removed(model, removal)(images), model(images), rtol=0, atol=1e-4)


def test_copies_of_neurons_are_made_up_for() -> None:
    """The one that stays gets the other's columns: OBS removes at no loss what no score of a single neuron tells."""
    model = tiny_vit()
    mlp = model.blocks[0].mlp
    with torch.no_grad():
        for parameter in mlp.fc1.parameters():
            parameter[64:] = parameter[:64]
        model.blocks[1].mlp.fc2.weight.mul_(10)
    costs = macs(model)
    cost = costs.of(structure_of(model))
    settings = Settings("obs", num_grads=400, damp=1e-6, multiple_of=1, min_width=64)
    budget = Budget(costs, cost, cost - 64 * costs.neuron)
    removal = head_width.choose(model, ("neurons",), settings, budget, tiny_calibration(400))
    left = sorted(number % 64 for number in removal.kept.neurons[0])
    assert left == list(range(64)) and removal.predicted_loss is not None and removal.predicted_loss < 1e-4
    images, _ = next(iter(tiny_calibration().batches()))
    torch.testing.assert_close(removed(model, removal)(images), model(images), rtol=0, atol=1e-3)


@pytest.mark.parametrize("saliency", [*SALIENCIES, "loss"])
def test_a_block_that_does_nothing_goes_first(saliency: Saliency) -> None:
    model = tiny_vit()
    with torch.no_grad():
        for layer in (model.blocks[0].attn.proj, model.blocks[0].mlp.fc2):
            layer.weight.mul_(1e-3)
        for layer in (model.blocks[0].attn.qkv, model.blocks[0].mlp.fc1):
            layer.weight.mul_(0.5)
    removal = depth.choose(model, settings_of(saliency), half(model, 0.6), tiny_calibration())
    assert list(removal.kept.heads) == [1] and len(model.blocks) == 2
    assert removed(model, removal)(torch.zeros(1, 3, 16, 16)).shape == (1, 10)


def test_sums_over_samples_are_those_of_whole_gradients() -> None:
    model, name = tiny_vit().double(), "blocks.1.attn.proj.weight"
    calibration = tiny_calibration(dtype=torch.float64)
    consumer = consumers_of(model, {name: 16}, calibration, 40).consumers[name]
    rows: list[torch.Tensor] = []
    for images, labels in calibration.batches():

        def take(_: str, gradients: object) -> None:
            weight_NOI = gradients.rows(0, 32)
            bias_NO1 = gradients.deltas_NTGO[:, :, 0].sum(1)[..., None]
            rows.append(torch.cat([weight_NOI, bias_NO1], 2))

        sample_gradients(model, [name], images, labels, consume=take)
    g_NOI = torch.cat(rows)
    torch.testing.assert_close(consumer.a_II, (g_NOI.mT @ g_NOI).sum(0))
    torch.testing.assert_close(consumer.b_OO, (g_NOI @ g_NOI.mT).sum(0))
    gates_NI = (g_NOI * consumer.w_OI).sum(1)
    torch.testing.assert_close(consumer.squares_G, gates_NI[:, :32].unflatten(1, (2, 16)).sum(2).square().sum(0))
    torch.testing.assert_close(torch.cat(consumer.branch), gates_NI.sum(1))


def test_processes_that_share_the_images_add_up_their_sums() -> None:
    model, names = tiny_vit(), {"blocks.1.attn.proj.weight": 16}
    alone, *parts = (
        consumers_of(model, names, replace(tiny_calibration(), ranks=ranks), 40).consumers["blocks.1.attn.proj.weight"]
        for ranks in (ALONE, Ranks(0, 2, lambda _: None), Ranks(1, 2, lambda _: None))
    )
    for name in ("a_II", "b_OO", "squares_G"):
        torch.testing.assert_close(sum(getattr(part, name) for part in parts), getattr(alone, name))


def test_gradients_need_images() -> None:
    model = tiny_vit()
    with pytest.raises(PruningError, match="saliency obs needs calibration images"):
        head_width.choose(model, ("heads",), settings_of("obs"), half(model), None)
    few = Calibration(tiny_calibration(8).batches, 8)
    with pytest.raises(PruningError, match="40 gradients are wanted"):
        depth.choose(model, settings_of("obs"), half(model), few)
