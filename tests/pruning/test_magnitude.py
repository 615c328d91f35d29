import pytest
import torch
from cases import full_masks, tiny_vit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import GlobalMagnitude, Pruned, UniformMagnitude, apply

METHODS = [GlobalMagnitude(), UniformMagnitude()]


def zeros_in(pruned: Pruned) -> int:
    return sum(int((~mask).sum()) for mask in pruned.masks.values())


@settings(max_examples=30, deadline=None)
@given(sparsity=st.floats(0.0, 1.0, exclude_max=True), method=st.sampled_from(METHODS))
def test_budgets_are_exact(sparsity, method):
    model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3), nn.Linear(3, 1))
    masks = full_masks(model, ["0.weight", "1.weight", "2.weight"])
    assert zeros_in(method.prune(model, masks, sparsity=sparsity)) == round(sparsity * 53)


def test_global_prunes_the_smallest_of_all_layers():
    model = tiny_vit()
    pruned = GlobalMagnitude().prune(model, full_masks(model), sparsity=0.6)
    kept = torch.cat([model.get_parameter(name)[mask] for name, mask in pruned.masks.items()]).abs()
    gone = torch.cat([model.get_parameter(name)[~mask] for name, mask in pruned.masks.items()]).abs()
    assert gone.max() <= kept.min()
    assert all((pruned.weights[name][~mask] == 0).all() for name, mask in pruned.masks.items())
    assert all(
        torch.equal(pruned.weights[name][mask], model.get_parameter(name)[mask]) for name, mask in pruned.masks.items()
    )


def test_uniform_prunes_the_smallest_of_each_layer():
    model = tiny_vit()
    pruned = UniformMagnitude().prune(model, full_masks(model), sparsity=0.75)
    for name, mask in pruned.masks.items():
        assert int((~mask).sum()) == round(0.75 * mask.numel())
        weight = model.get_parameter(name).abs()
        assert weight[~mask].max() <= weight[mask].min()


@pytest.mark.parametrize("method", METHODS)
def test_of_equal_magnitudes_the_first_goes_first(method):
    model = nn.Sequential(nn.Linear(3, 2))
    nn.init.ones_(model[0].weight)
    pruned = method.prune(model, full_masks(model, ["0.weight"]), sparsity=0.5)
    assert pruned.masks["0.weight"].tolist() == [[False] * 3, [True] * 3]


@pytest.mark.parametrize("method", METHODS)
def test_earlier_zeros_stay_even_beside_smaller_weights(method):
    model = nn.Sequential(nn.Linear(4, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, 1e-9, 5.0, -7.0]]))
    masks = {"0.weight": torch.tensor([[True, True, True, False]])}
    with torch.no_grad():
        model[0].weight[0, 3] = 0
    pruned = method.prune(model, masks, sparsity=0.5)
    assert pruned.masks["0.weight"].tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("method", METHODS)
def test_two_prunes_in_a_row_keep_the_zeros_of_the_first(method):
    model = tiny_vit()
    first = method.prune(model, full_masks(model), sparsity=0.5)
    apply(model, first)
    second = method.prune(model, first.masks, sparsity=0.7)
    assert all((first.masks[name] >= mask).all() for name, mask in second.masks.items())
    assert all(mask.any() for mask in second.masks.values())


def test_uniform_refuses_a_layer_that_is_sparser_already():
    model = tiny_vit()
    masks = full_masks(model, ["blocks.0.attn.proj.weight", "blocks.1.attn.proj.weight"])
    masks["blocks.0.attn.proj.weight"][:] = False
    with torch.no_grad():
        model.get_parameter("blocks.0.attn.proj.weight").zero_()
    with pytest.raises(PruningError, match=r"blocks\.0\.attn\.proj\.weight has 1024 zeros already"):
        UniformMagnitude().prune(model, masks, sparsity=0.6)
