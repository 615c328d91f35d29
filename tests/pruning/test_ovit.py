import json
import weakref

import oracles
import pytest
import torch
from cases import full_masks, images_and_labels, tiny_calibration, tiny_convnet, tiny_vit
from torch.nn import functional

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import Calibration, GlobalMagnitude, OViT, apply, scheme
from ovit_deploy.pruning.allocation import allocate
from ovit_deploy.pruning.fisher import fishers
from ovit_deploy.pruning.streaming import compensate_all, eliminate_all

TINY = OViT(block_size=32, num_grads=40, damping=1e-4, memory_budget=2**26)


def settings_of(method, **changes):
    return type(method)(**(vars(method) | changes))


def zeros_in(pruned):
    return sum(int((~mask).sum()) for mask in pruned.masks.values())


def fishers_of(model, masks, calibration, damping=1e-4):
    images, labels = (torch.cat(part) for part in zip(*calibration.batches(), strict=True))
    return {
        name: oracles.fisher_blocks(model.eval(), name, mask, images, labels, block_size=32, damping=damping)
        for name, mask in masks.items()
    }


@pytest.mark.parametrize("allocation", ["hull", "marginal", "cumulative", "uniform"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3333, 0.9])
def test_budgets_are_exact_and_zeros_exact(allocation, sparsity):
    model = tiny_vit()
    masks = full_masks(model)
    pruned = settings_of(TINY, allocation=allocation).prune(
        model, masks, sparsity=sparsity, calibration=tiny_calibration()
    )
    assert zeros_in(pruned) == round(sparsity * sum(mask.numel() for mask in masks.values()))
    for name, mask in pruned.masks.items():
        assert mask.dtype == torch.bool and mask.shape == pruned.weights[name].shape
        assert (pruned.weights[name][~mask] == 0).all()


def test_nothing_removed_changes_nothing():
    model = tiny_vit()
    pruned = TINY.prune(model, full_masks(model), sparsity=0.0, calibration=tiny_calibration())
    assert pruned.predicted_loss == 0
    assert all(torch.equal(weight, model.get_parameter(name)) for name, weight in pruned.weights.items())


def test_the_predicted_loss_is_the_quadratic_form_of_the_change():
    model, calibration = tiny_vit(), tiny_calibration()
    masks = full_masks(model)
    pruned = TINY.prune(model, masks, sparsity=0.5, calibration=calibration)
    expected = 0.0
    for name, fisher_KBB in fishers_of(model, masks, calibration).items():
        change_KB = (pruned.weights[name] - model.get_parameter(name).detach()).double().reshape(-1, 32)
        expected += torch.einsum("ki,kij,kj->", change_KB, fisher_KBB, change_KB).item() / 2
    assert pruned.predicted_loss == pytest.approx(expected, rel=1e-3)


def test_kept_weights_take_their_best_values():
    model, calibration = tiny_vit().double(), tiny_calibration(dtype=torch.float64)
    masks = full_masks(model, ["blocks.0.mlp.fc1.weight"])
    pruned = TINY.prune(model, masks, sparsity=0.6, calibration=calibration)
    name = "blocks.0.mlp.fc1.weight"
    fisher_KBB = fishers_of(model, masks, calibration)[name]
    w_KB, kept_KB, u_KB = (
        tensor.detach().reshape(-1, 32)
        for tensor in (model.get_parameter(name), pruned.masks[name], pruned.weights[name])
    )
    for b in range(0, len(w_KB), 13):
        gone = (~kept_KB[b]).nonzero().flatten().tolist()
        torch.testing.assert_close(u_KB[b], oracles.best_rest(w_KB[b], fisher_KBB[b], gone), rtol=1e-6, atol=1e-8)


def trained_vit():
    """A tiny ViT after a few steps on the calibration images: its loss has a shape to keep."""
    model = tiny_vit()
    images, labels = images_and_labels(40)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(25):
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model.eval()


def test_the_loss_after_pruning_is_lower_than_after_magnitude_pruning():
    images, labels = images_and_labels(40)
    losses = {}
    for method in (settings_of(TINY, damping=1e-6), GlobalMagnitude()):
        model = trained_vit()
        apply(model, method.prune(model, full_masks(model), sparsity=0.5, calibration=tiny_calibration()))
        losses[type(method).__name__] = functional.cross_entropy(model(images), labels).item()
    assert losses["OViT"] < losses["GlobalMagnitude"]


@pytest.mark.parametrize("allocation", ["hull", "uniform"])
def test_two_prunes_in_a_row_keep_zeros_and_start_from_the_present_weights(allocation):
    model, calibration = trained_vit(), tiny_calibration()
    method = settings_of(TINY, allocation=allocation)
    first = method.prune(model, full_masks(model), sparsity=0.5, calibration=calibration)
    apply(model, first)
    with torch.no_grad():
        for name, mask in first.masks.items():  # as training would: weights move on, zeros stay
            model.get_parameter(name).mul_(1 + 0.5 * mask)
    second = method.prune(model, first.masks, sparsity=0.6, calibration=calibration)
    for name, mask in second.masks.items():
        assert (first.masks[name] >= mask).all()
        assert (second.weights[name][~first.masks[name]] == 0).all()
        assert mask.float().mean() > 0.05
    same = method.prune(model, first.masks, sparsity=0.5, calibration=calibration)
    assert all(torch.equal(weight, model.get_parameter(name)) for name, weight in same.weights.items())


def test_a_small_budget_gives_what_one_pass_gives():
    model, calibration = tiny_vit(), tiny_calibration()
    masks = full_masks(model)
    whole = TINY.prune(model, masks, sparsity=0.7, calibration=calibration)
    parts = settings_of(TINY, memory_budget=300_000).prune(model, masks, sparsity=0.7, calibration=calibration)
    assert whole.details["passes"] == 1
    assert parts.details["groups"] > 5
    assert parts.details["passes"] == 2 * parts.details["groups"]
    for name in masks:
        assert torch.equal(parts.masks[name], whole.masks[name])
        torch.testing.assert_close(parts.weights[name], whole.weights[name])
    assert parts.predicted_loss == pytest.approx(whole.predicted_loss)


def test_the_fisher_blocks_of_two_groups_are_never_held_at_once(monkeypatch):
    held: list[weakref.ref] = []

    def spy(*args, **kwargs):
        assert not any(ref() is not None for ref in held)
        found = fishers(*args, **kwargs)
        held.extend(weakref.ref(block) for block in found.blocks.values())
        return found

    monkeypatch.setattr(scheme, "fishers", spy)
    model = tiny_vit()
    method = settings_of(TINY, memory_budget=300_000)
    method.prune(model, full_masks(model), sparsity=0.5, calibration=tiny_calibration())
    assert len(held) > 10


def test_threads_change_nothing():
    model, calibration = tiny_vit(), tiny_calibration()
    masks = full_masks(model)
    one = TINY.prune(model, masks, sparsity=0.7, calibration=calibration)
    torch.set_num_threads(2)  # the fixture sets it back
    two = TINY.prune(model, masks, sparsity=0.7, calibration=calibration)
    assert torch.get_num_threads() == 2
    for name in masks:
        assert torch.equal(one.masks[name], two.masks[name])
        torch.testing.assert_close(one.weights[name], two.weights[name])


def test_convolutions_are_pruned_beside_linear_layers():
    model = tiny_convnet()
    masks = full_masks(model, ["stem.weight", "grouped.weight", "depthwise.weight", "head.weight"])
    pruned = TINY.prune(model, masks, sparsity=0.7, calibration=tiny_calibration())
    assert zeros_in(pruned) == round(0.7 * (216 + 432 + 36 + 120))
    assert all(pruned.weights[name].shape == model.get_parameter(name).shape for name in masks)


def test_a_channels_last_model_gets_the_same_answer():
    masks = full_masks(tiny_convnet(), ["stem.weight", "grouped.weight"])
    plain, last = (
        TINY.prune(model, masks, sparsity=0.5, calibration=tiny_calibration())
        for model in (tiny_convnet(), tiny_convnet().to(memory_format=torch.channels_last))
    )
    for name, mask in plain.masks.items():
        assert torch.equal(last.masks[name], mask)
        torch.testing.assert_close(last.weights[name], plain.weights[name])


def test_too_few_calibration_samples_are_an_error():
    model = tiny_vit()
    with pytest.raises(PruningError, match="40 gradients are wanted, but calibration has only 20 samples"):
        TINY.prune(model, full_masks(model), sparsity=0.5, calibration=tiny_calibration(20))


def test_a_budget_below_one_block_is_an_error():
    model = tiny_vit()
    with pytest.raises(PruningError, match="too few to work on a Fisher block of 32 weights"):
        settings_of(TINY, memory_budget=1000).prune(
            model, full_masks(model), sparsity=0.5, calibration=tiny_calibration()
        )


def test_calibration_that_changes_between_passes_is_an_error():
    model = tiny_vit()
    seeds = iter(range(1000))

    def shuffled():
        images, labels = images_and_labels(40, seed=next(seeds))
        return zip(images.split(20), labels.split(20), strict=True)

    with pytest.raises(PruningError, match="other samples at a second pass"):
        settings_of(TINY, memory_budget=300_000).prune(
            model, full_masks(model), sparsity=0.5, calibration=Calibration(shuffled, 40)
        )


def test_one_elimination_serves_every_sparsity():
    model, calibration = tiny_vit(), tiny_calibration()
    masks = full_masks(model)
    total = sum(mask.numel() for mask in masks.values())
    problem = TINY.problem(model, masks, calibration)
    solution = eliminate_all(problem)
    for sparsity in (0.3, 0.8):
        settled = compensate_all(problem, solution, allocate(solution.curves, round(sparsity * total)))
        alone = TINY.prune(model, masks, sparsity=sparsity, calibration=calibration)
        assert all(torch.equal(settled.weights[name], alone.weights[name]) for name in masks)
        assert settled.loss == pytest.approx(alone.predicted_loss)


def test_recomputations_reach_the_same_budget_with_other_weights():
    model, calibration = trained_vit(), tiny_calibration()
    masks = full_masks(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    once = TINY.prune(model, masks, sparsity=0.7, calibration=calibration)
    thrice = settings_of(TINY, num_recomputations=3).prune(model, masks, sparsity=0.7, calibration=calibration)
    assert zeros_in(thrice) == zeros_in(once)
    assert any(not torch.equal(thrice.masks[name], once.masks[name]) for name in masks)
    assert len(thrice.details["pieces"]) == 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_model_is_left_as_it_was_found():
    model = tiny_vit().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    TINY.prune(model, full_masks(model), sparsity=0.5, calibration=tiny_calibration())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_the_model_is_restored_when_a_later_piece_fails():
    model = trained_vit()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    opened = iter(range(1000))

    def runs_dry():
        images, labels = images_and_labels(40 if next(opened) < 2 else 8)
        return [(images, labels)]

    with pytest.raises(PruningError, match="calibration has only 8"):
        settings_of(TINY, num_recomputations=2).prune(
            model, full_masks(model), sparsity=0.5, calibration=Calibration(runs_dry, 40)
        )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_details_can_be_written_down():
    model = tiny_vit()
    lines = []
    pruned = settings_of(TINY, num_recomputations=2).prune(
        model, full_masks(model), sparsity=0.5, calibration=tiny_calibration(), report=lines.append
    )
    assert json.loads(json.dumps(pruned.details))["num_gradients"] == 40
    assert any("gradients" in line for line in lines)


def test_settings_that_mean_nothing_are_errors():
    with pytest.raises(PruningError, match="unknown allocation 'global'"):
        settings_of(TINY, allocation="global")
    with pytest.raises(PruningError, match="num_recomputations is 0"):
        settings_of(TINY, num_recomputations=0)
    with pytest.raises(PruningError, match="damping is -1"):
        settings_of(TINY, damping=-1.0)


def test_no_calibration_is_an_error():
    model = tiny_vit()
    with pytest.raises(PruningError, match="needs calibration"):
        TINY.prune(model, full_masks(model), sparsity=0.5)
