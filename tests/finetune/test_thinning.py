"""Parts removed in the middle of training: the optimizer, masks and averages go on with what is left."""

import copy

import pytest
import torch
from structure_cases import masked, small_vit
from torch import nn
from training_cases import PRUNE, trained

from ovit_deploy.errors import PruningError
from ovit_deploy.finetune.actions import State
from ovit_deploy.finetune.thinning import apply, cut_optimizer
from ovit_deploy.pruning.structured import Removal
from ovit_deploy.structure import Kept, Structure, cut, remove, structure_of

KEPT = Kept({0: (0, 2), 2: (1,)}, {0: (0, 3, 4, 9), 2: (5, 6)})
IMAGES = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
THIN = """
  - !HeadWidthPruningModifier
    init_sparsity: 0.1
    final_sparsity: 0.35
    start_epoch: 0.25
    end_epoch: 0.75
    update_frequency: 0.5
    num_grads: 16
    min_width: 32
"""
DEPTH = "\n  - !DepthPruningModifier {final_sparsity: 0.5, start_epoch: 1.25, end_epoch: 1.25, saliency: magnitude}\n"


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, held: dict[str, torch.Tensor]) -> None:
    for number in range(count):
        optimizer.zero_grad()
        labels = torch.arange(8) % 5
        nn.functional.cross_entropy(model(IMAGES + 0.1 * number), labels).backward()
        for name, mask in held.items():
            model.get_parameter(name).grad.mul_(mask)
        optimizer.step()


def test_training_goes_on_as_that_of_the_masked_model() -> None:
    """Adam's moments of what is left are those it had: the same steps as with zeros that are held."""
    zeroed = small_vit()
    optimizer = torch.optim.Adam(zeroed.parameters(), lr=1e-3, eps=1e-3)
    steps(zeroed, optimizer, 3, {})
    thin = copy.deepcopy(zeroed)
    thinner = torch.optim.Adam(thin.parameters(), lr=1e-3, eps=1e-3)
    thinner.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = dict(thin.named_parameters())
    plan = remove(thin, KEPT)
    assert cut_optimizer(thinner, before, dict(thin.named_parameters()), plan) == []

    full = copy.deepcopy(zeroed)
    with torch.no_grad():
        for parameter in full.parameters():
            parameter.fill_(1)
    masked(full, KEPT)
    held = {name: mask.detach() for name, mask in full.named_parameters()}
    masked(zeroed, KEPT)
    for name, parameter in zeroed.named_parameters():
        for moment in optimizer.state[parameter].values():
            if moment.ndim:
                moment.mul_(held[name])
    steps(zeroed, optimizer, 3, held)
    steps(thin, thinner, 3, {})
    expected = dict(zeroed.named_parameters())
    for name, parameter in thin.named_parameters():
        torch.testing.assert_close(parameter, cut(expected[name], plan.get(name) or ()), rtol=0, atol=1e-5)


def test_moments_of_other_shapes_are_told_and_begin_anew() -> None:
    model = small_vit()
    optimizer = torch.optim.Adafactor(model.parameters())
    steps(model, optimizer, 1, {})
    before = dict(model.named_parameters())
    plan = remove(model, KEPT)
    told = cut_optimizer(optimizer, before, dict(model.named_parameters()), plan)
    assert "blocks.0.attn.qkv.weight" in told and "blocks.0.norm1.weight" not in told
    assert not any(name.startswith("blocks.1.") for name in told)
    steps(model, optimizer, 1, {})


def test_zeros_of_masks_stay_zeros_where_the_rest_compensates() -> None:
    model = small_vit()
    name = "blocks.0.mlp.fc2.weight"
    mask = torch.rand(24, 48) > 0.5
    state = State(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        targets={"here": [name, "blocks.1.mlp.fc2.weight"]},
        calibration=lambda *_: pytest.fail("no images"),
        memory_budget=None,
        report=lambda _: None,
        masks={name: mask.clone(), "blocks.1.mlp.fc2.weight": mask.clone()},
        trainable={"there": {"blocks.1.norm1.weight": True, "blocks.2.norm1.weight": True}},
    )
    apply(Removal(KEPT, {name: torch.ones(24, 48)}), state)
    columns = list(KEPT.neurons[0])
    assert list(state.masks) == [name] and torch.equal(state.masks[name], mask[:, columns])
    assert torch.equal(model.get_parameter(name), mask[:, columns].float())
    assert state.targets == {"here": [name]}
    assert state.trainable == {"there": {"blocks.2.norm1.weight": True}}
    assert state.structure == structure_of(model)


def test_parts_go_while_masks_and_an_average_are_on() -> None:
    state, done, records = trained("ema_decay: 0.9", PRUNE + THIN + DEPTH + "  - !DistillationModifier {}")
    model = state.model
    assert [(line["event"], line["epoch"]) for line in records if line["event"] != "epoch"] == [
        ("thin", 0.25),
        ("prune", 0.5),
        ("thin", 0.75),
        ("prune", 1.0),
        ("thin", 1.25),
    ]
    assert state.structure == structure_of(model) and len(state.structure.blocks) == 1
    held = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()} == {id(p) for p in state.optimizer.state}
    for parameter in model.parameters():
        assert state.optimizer.state[parameter]["exp_avg"].shape == parameter.shape
    assert all(mask.shape == model.get_parameter(name).shape for name, mask in state.masks.items())
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in state.masks.items())
    assert all(torch.isfinite(torch.tensor(step.loss)) for step in done)
    thinned = [line for line in records if line["event"] == "thin"]
    assert [line["sparsity"] >= asked for line, asked in zip(thinned, (0.1, 0.35, 0.5), strict=True)] == [True] * 3
    assert Structure.from_dict(thinned[-1]["details"]["structure"]) == state.structure
    assert thinned[0]["predicted_loss_increase"] > 0 and thinned[2]["predicted_loss_increase"] is None


def test_a_budget_that_floors_forbid_is_an_error() -> None:
    with pytest.raises(PruningError, match="the budget is"):
        trained(
            "", "\n  - !HeadPruningModifier {final_sparsity: 0.9, start_epoch: 0, end_epoch: 0, saliency: magnitude}"
        )
