"""What all methods promise that bring every layer to the same sparsity."""

import json

import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_convnet, tiny_vit
from hypothesis import given, settings
from hypothesis import strategies as st

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import OBC, FastOViT, GlobalMagnitude, SparseGPT, Wanda, apply

METHODS = [
    Wanda(num_samples=40),
    SparseGPT(num_samples=40, columns=24, memory_budget=2**26),
    OBC(num_samples=40, memory_budget=2**26),
    FastOViT(block_size=32, num_grads=40, columns=8),
]
WITH_PATTERN = [method for method in METHODS if hasattr(method, "pattern")]
CONVOLUTIONS = ["stem.weight", "grouped.weight", "depthwise.weight", "head.weight"]


def name_of(method):
    return type(method).__name__


def settings_of(method, **changes):
    return type(method)(**(vars(method) | changes))


def zeros_in(pruned):
    return sum(int((~mask).sum()) for mask in pruned.masks.values())


def prune(method, model, masks, sparsity, **kwargs):
    return method.prune(model, masks, sparsity=sparsity, calibration=tiny_calibration(), **kwargs)


@pytest.mark.parametrize("method", METHODS, ids=name_of)
@settings(max_examples=8, deadline=None)
@given(sparsity=st.floats(0.0, 1.0, exclude_max=True))
def test_budgets_are_exact_in_total_and_even_over_layers(method, sparsity):
    model = tiny_convnet()
    masks = full_masks(model, CONVOLUTIONS)
    pruned = prune(method, model, masks, sparsity)
    assert zeros_in(pruned) == round(sparsity * 804)
    for name, mask in pruned.masks.items():
        assert mask.dtype == torch.bool and mask.shape == pruned.weights[name].shape == masks[name].shape
        assert abs(int((~mask).sum()) - sparsity * mask.numel()) <= 2
        assert (pruned.weights[name][~mask] == 0).all()


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_nothing_removed_changes_nothing(method):
    model = tiny_vit()
    pruned = prune(method, model, full_masks(model), 0.0)
    assert all(torch.equal(weight, model.get_parameter(name)) for name, weight in pruned.weights.items())


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_two_prunes_in_a_row_keep_zeros_and_start_from_the_present_weights(method):
    model = tiny_vit()
    first = prune(method, model, full_masks(model), 0.5)
    apply(model, first)
    with torch.no_grad():
        for name, mask in first.masks.items():  # as training would: weights move on, zeros stay
            model.get_parameter(name).mul_(1 + 0.5 * mask)
    second = prune(method, model, first.masks, 0.6)
    assert zeros_in(second) == round(0.6 * sum(mask.numel() for mask in first.masks.values()))
    for name, mask in second.masks.items():
        assert (first.masks[name] >= mask).all()
        assert (second.weights[name][~mask] == 0).all()
        assert mask.float().mean() > 0.05
        assert not torch.equal(second.weights[name][mask], first.weights[name][mask])


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_zeros_that_another_method_left_unevenly_stay(method):
    model = tiny_vit()
    first = GlobalMagnitude().prune(model, full_masks(model), sparsity=0.5)
    apply(model, first)
    second = prune(method, model, first.masks, 0.8)
    assert zeros_in(second) == round(0.8 * sum(mask.numel() for mask in first.masks.values()))
    assert all((first.masks[name] >= mask).all() for name, mask in second.masks.items())


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_a_layer_that_is_sparser_already_is_an_error(method):
    model = tiny_vit()
    masks = full_masks(model)
    masks["blocks.0.attn.proj.weight"][:] = False
    with torch.no_grad():
        model.get_parameter("blocks.0.attn.proj.weight").zero_()
    with pytest.raises(PruningError, match=r"blocks\.0\.attn\.proj\.weight has 1024 zeros already"):
        prune(method, model, masks, 0.6)


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_the_model_is_left_as_it_was_found(method):
    model = tiny_vit().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prune(method, model, full_masks(model), 0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_a_float64_model_gets_the_answer_of_float32(method):
    plain, double = tiny_vit(), tiny_vit().double()
    masks = full_masks(plain, ["blocks.0.attn.qkv.weight", "blocks.1.mlp.fc2.weight"])
    expected = prune(method, plain, masks, 0.5)
    found = method.prune(double, masks, sparsity=0.5, calibration=tiny_calibration(dtype=torch.float64))
    for name, mask in found.masks.items():
        assert (mask == expected.masks[name]).float().mean() > 0.995
    assert (found.predicted_loss or 0) == pytest.approx(expected.predicted_loss or 0, rel=1e-3)
    assert found.details.get("output_error", {}) == pytest.approx(expected.details.get("output_error", {}), rel=1e-2)


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_details_can_be_written_down_and_progress_is_told(method):
    model, lines = tiny_vit(), []
    pruned = prune(method, model, full_masks(model), 0.5, report=lines.append)
    assert "40" in json.dumps(pruned.details)
    assert any("40" in line for line in lines)


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_no_calibration_or_too_little_is_an_error(method):
    model = tiny_vit()
    with pytest.raises(PruningError, match="needs calibration"):
        method.prune(model, full_masks(model), sparsity=0.5)
    with pytest.raises(PruningError, match="40 .* are wanted, but calibration has only 20"):
        method.prune(model, full_masks(model), sparsity=0.5, calibration=tiny_calibration(20))


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_layers_of_other_kinds_are_an_error(method):
    model = tiny_vit()
    with pytest.raises(PruningError, match=r"norm\.weight belongs to a LayerNorm"):
        prune(method, model, full_masks(model, ["norm.weight"]), 0.5)


@pytest.mark.parametrize("method", WITH_PATTERN, ids=name_of)
@pytest.mark.parametrize("pattern", [(2, 4), (1, 4), (4, 8), (5, 8)])
def test_patterns_hold_in_every_group(method, pattern):
    kept, group = pattern
    model = tiny_vit()
    pruned = prune(settings_of(method, pattern=f"{kept}:{group}"), model, full_masks(model), 1 - kept / group)
    for mask in pruned.masks.values():
        assert (mask.reshape(-1, group).sum(dim=1) == kept).all()


@pytest.mark.parametrize("method", WITH_PATTERN, ids=name_of)
def test_a_sparsity_without_an_end_may_be_written_to_six_digits(method):
    model = tiny_convnet()
    pruned = prune(settings_of(method, pattern="1:3"), model, full_masks(model, ["head.weight"]), 0.666667)
    assert (pruned.masks["head.weight"].reshape(-1, 3).sum(dim=1) == 1).all()


@pytest.mark.parametrize("method", WITH_PATTERN, ids=name_of)
def test_a_pattern_keeps_the_zeros_of_a_looser_one(method):
    model = tiny_vit()
    first = prune(settings_of(method, pattern="3:4"), model, full_masks(model), 0.25)
    apply(model, first)
    second = prune(settings_of(method, pattern="2:4"), model, first.masks, 0.5)
    for name, mask in second.masks.items():
        assert (mask.reshape(-1, 4).sum(dim=1) == 2).all()
        assert (first.masks[name] >= mask).all()


@pytest.mark.parametrize("method", WITH_PATTERN, ids=name_of)
def test_a_group_with_more_zeros_than_its_pattern_allows_is_an_error(method):
    model = tiny_vit()
    masks = full_masks(model, ["head.weight"])
    masks["head.weight"][3, 8:10] = False
    with torch.no_grad():
        model.head.weight[3, 8:10] = 0
    with pytest.raises(PruningError, match="1 groups of head.weight have zeros already that do not fit in pattern 3:4"):
        prune(settings_of(method, pattern="3:4"), model, masks, 0.25)


@pytest.mark.parametrize("method", WITH_PATTERN, ids=name_of)
def test_patterns_that_cannot_be_had_are_errors(method):
    model = tiny_vit()
    two_of_four = settings_of(method, pattern="2:4")
    with pytest.raises(PruningError, match=r"2:4 means a sparsity of 0\.5, not 0\.6"):
        prune(two_of_four, model, full_masks(model), 0.6)
    with pytest.raises(PruningError, match="has 32 inputs, which do not form groups of 6"):
        prune(settings_of(method, pattern="3:6"), model, full_masks(model), 0.5)
    with pytest.raises(PruningError, match="1x1 convolutions"):
        prune(two_of_four, tiny_convnet(), full_masks(tiny_convnet(), ["stem.weight"]), 0.5)
    with pytest.raises(PruningError, match="unknown pattern '4:4'"):
        settings_of(method, pattern="4:4")
