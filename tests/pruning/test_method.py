import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_vit
from timm.layers import ScaledStdConv2d
from torch import nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import (
    MFAC,
    GlobalMagnitude,
    GradientWeight,
    OViT,
    Pruned,
    UniformMagnitude,
    WoodFisher,
    apply,
)

METHODS = [
    GlobalMagnitude(),
    UniformMagnitude(),
    GradientWeight(num_grads=4),
    OViT(num_grads=4, block_size=16),
    WoodFisher(num_grads=4, block_size=16),
    MFAC(num_grads=4, block_size=16),
]
CALIBRATED = METHODS[2:]


@pytest.fixture(params=METHODS, ids=lambda method: type(method).__name__)
def prune(request):
    def run(model, masks, sparsity):
        return request.param.prune(model, masks, sparsity=sparsity, calibration=tiny_calibration(4))

    return run


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 75, float("nan")])
def test_a_sparsity_outside_its_range_is_an_error(prune, sparsity):
    model = tiny_vit()
    with pytest.raises(PruningError, match=r"is not in \[0, 1\)"):
        prune(model, full_masks(model), sparsity)


def test_fewer_zeros_than_there_are_is_an_error(prune):
    model = tiny_vit()
    first = GlobalMagnitude().prune(model, full_masks(model), sparsity=0.5)
    apply(model, first)
    with pytest.raises(PruningError, match="pruned already"):
        prune(model, first.masks, 0.4)


def test_no_targets_is_an_error(prune):
    with pytest.raises(PruningError, match="nothing to prune"):
        prune(tiny_vit(), {}, 0.5)


def test_an_unknown_target_is_named(prune):
    with pytest.raises(PruningError, match=r"blocks\.7\.weight is not a parameter"):
        prune(tiny_vit(), {"blocks.7.weight": torch.ones(2, 2, dtype=torch.bool)}, 0.5)


def test_a_mask_of_another_shape_is_named(prune):
    with pytest.raises(PruningError, match=r"head\.weight has shape \(3, 3\)"):
        prune(tiny_vit(), {"head.weight": torch.ones(3, 3, dtype=torch.bool)}, 0.5)


def test_a_mask_that_the_weights_do_not_follow_is_named(prune):
    model = tiny_vit()
    masks = full_masks(model, ["head.weight"])
    masks["head.weight"][0, 0] = False
    with pytest.raises(PruningError, match=r"head\.weight .* not zero"):
        prune(model, masks, 0.5)


def test_standardised_weights_are_refused_by_name(prune):
    model = nn.Sequential(ScaledStdConv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(3))
    model(torch.zeros(1, 3, 8, 8))
    with pytest.raises(PruningError, match=r"0\.weight is standardised by its ScaledStdConv2d: .*no zero any more"):
        prune(model, full_masks(model, ["0.weight"]), 0.5)


def test_tied_weights_are_refused_and_both_named(prune):
    model = tiny_vit()
    model.blocks[1].mlp.fc1.weight = model.blocks[0].mlp.fc1.weight
    name = "blocks.0.mlp.fc1.weight"
    with pytest.raises(PruningError, match=r"blocks\.0\.mlp\.fc1\.weight and blocks\.1\.mlp\.fc1\.weight are one tied"):
        prune(model, full_masks(model, [name]), 0.5)


def test_applying_copies_in_place():
    model = nn.Sequential(nn.Linear(3, 2))
    parameter, address = model[0].weight, model[0].weight.data_ptr()
    values = torch.arange(6.0).view(2, 3)
    apply(model, Pruned({"0.weight": values > 0}, {"0.weight": values}))
    assert model[0].weight is parameter
    assert model[0].weight.data_ptr() == address
    assert torch.equal(model[0].weight.data, values)


@pytest.mark.parametrize("sparsity", [0.0, 0.3333, 0.9])
def test_budgets_are_exact_and_the_model_is_left_as_it_was(prune, sparsity):
    model = tiny_vit().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    masks = full_masks(model)
    pruned = prune(model, masks, sparsity)
    assert sum(int((~mask).sum()) for mask in pruned.masks.values()) == round(
        sparsity * sum(mask.numel() for mask in masks.values())
    )
    for name, mask in pruned.masks.items():
        assert mask.dtype == torch.bool and mask.shape == pruned.weights[name].shape
        assert (pruned.weights[name][~mask] == 0).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_a_second_prune_keeps_the_zeros_of_the_first_and_starts_from_the_present_weights(prune):
    model = tiny_vit()
    first = prune(model, full_masks(model), 0.5)
    apply(model, first)
    with torch.no_grad():
        for name, mask in first.masks.items():  # as training would: weights move on, zeros stay
            model.get_parameter(name).mul_(1 + 0.5 * mask)
    second = prune(model, first.masks, 0.6)
    for name, mask in second.masks.items():
        assert (first.masks[name] >= mask).all() and mask.any()
        assert (second.weights[name][~first.masks[name]] == 0).all()
    same = prune(model, first.masks, 0.5)
    assert all(torch.equal(weight, model.get_parameter(name)) for name, weight in same.weights.items())


@pytest.mark.parametrize("method", CALIBRATED, ids=lambda method: type(method).__name__)
def test_methods_that_look_at_images_want_enough_of_them(method):
    model = tiny_vit()
    with pytest.raises(PruningError, match="needs calibration images"):
        method.prune(model, full_masks(model), sparsity=0.5)
    with pytest.raises(PruningError, match="4 gradients are wanted, but calibration has only 3"):
        method.prune(model, full_masks(model), sparsity=0.5, calibration=tiny_calibration(3))


@pytest.mark.parametrize("method", CALIBRATED, ids=lambda method: type(method).__name__)
def test_numbers_of_gradients_that_mean_nothing_are_errors(method):
    with pytest.raises(PruningError, match="num_grads is 0"):
        type(method)(num_grads=0)
