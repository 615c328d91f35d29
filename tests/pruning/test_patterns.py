import oracles
import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_convnet, tiny_vit
from torch import nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import GlobalMagnitude, OViT, UniformMagnitude, apply
from ovit_deploy.pruning.patterns import parse_pattern

MAGNITUDE = [GlobalMagnitude, UniformMagnitude]
NAME = "blocks.0.mlp.fc1.weight"


def ovit(pattern, **changes):
    settings = {"block_size": 32, "num_grads": 40, "damping": 1e-4, "memory_budget": 2**26} | changes
    return OViT(pattern=pattern, **settings)


METHODS = [*MAGNITUDE, ovit]


def zeros_in_groups(mask, group):
    return (~mask).reshape(-1, group).sum(dim=1)


def prune(method, model, masks, sparsity):
    return method.prune(
        model, masks, sparsity=sparsity, calibration=tiny_calibration(dtype=next(model.parameters()).dtype)
    )


@pytest.mark.parametrize("build", METHODS)
@pytest.mark.parametrize(("text", "kept", "group"), [("2:4", 2, 4), ("1:4", 1, 4), ("4:8", 4, 8), ("3:4", 3, 4)])
def test_every_group_of_m_keeps_n(build, text, kept, group):
    model = tiny_vit()
    pruned = prune(build(text), model, full_masks(model), 1 - kept / group)
    for name, mask in pruned.masks.items():
        assert (zeros_in_groups(mask, group) == group - kept).all()
        assert (pruned.weights[name][~mask] == 0).all()
        assert bool(pruned.weights[name][mask].all())


@pytest.mark.parametrize("build", METHODS)
@pytest.mark.parametrize("sparsity", [0.0, 0.333, 0.75])
def test_blocks_go_whole_to_an_exact_number_of_them(build, sparsity):
    model = tiny_vit()
    masks = full_masks(model)
    pruned = prune(build("block4"), model, masks, sparsity)
    zeros_G = torch.cat([zeros_in_groups(mask, 4) for mask in pruned.masks.values()])
    assert ((zeros_G == 0) | (zeros_G == 4)).all()
    assert int((zeros_G == 4).sum()) == round(sparsity * len(zeros_G))


@pytest.mark.parametrize("allocation", ["hull", "marginal", "cumulative", "uniform"])
@pytest.mark.parametrize(("text", "sparsity"), [("2:4", 0.5), ("block4", 0.6)])
def test_every_allocation_and_several_pieces_reach_a_pattern(allocation, text, sparsity):
    model = tiny_vit()
    masks = full_masks(model, [NAME, "blocks.1.attn.qkv.weight"])
    method = ovit(text, allocation=allocation, num_recomputations=3)
    pruned = prune(method, model, masks, sparsity)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int((~mask).sum()) for mask in pruned.masks.values()) == round(sparsity * total / 4) * 4
    for mask in pruned.masks.values():
        zeros_G = zeros_in_groups(mask, 4)
        assert (zeros_G == 2).all() if text == "2:4" else (zeros_G % 4 == 0).all()


@pytest.mark.parametrize(("text", "sparsity"), [("2:4", 0.5), ("block4", 0.5)])
def test_kept_weights_take_their_best_values(text, sparsity):
    model = tiny_vit().double()
    masks = full_masks(model, [NAME])
    pruned = prune(ovit(text), model, masks, sparsity)
    images, labels = (torch.cat(part) for part in zip(*tiny_calibration(dtype=torch.float64).batches(), strict=True))
    fisher_KBB = oracles.fisher_blocks(model.eval(), NAME, masks[NAME], images, labels, block_size=32, damping=1e-4)
    w_KB, kept_KB, u_KB = (
        tensor.detach().reshape(-1, 32)
        for tensor in (model.get_parameter(NAME), pruned.masks[NAME], pruned.weights[NAME])
    )
    loss = 0.0
    for b in range(len(w_KB)):
        gone = (~kept_KB[b]).nonzero().flatten().tolist()
        loss += oracles.joint_loss(w_KB[b], fisher_KBB[b], gone) if gone else 0.0
        if b % 29 == 0 and gone:
            torch.testing.assert_close(u_KB[b], oracles.best_rest(w_KB[b], fisher_KBB[b], gone), rtol=1e-6, atol=1e-8)
    assert pruned.predicted_loss == pytest.approx(loss)


@pytest.mark.parametrize(("text", "sparsity"), [("2:4", 0.5), ("block4", 0.5)])
def test_a_pattern_costs_more_than_no_pattern_and_less_than_its_magnitudes(text, sparsity):
    model = tiny_vit()
    masks = full_masks(model)
    free, bound = (prune(ovit(pattern), model, masks, sparsity) for pattern in ("unstructured", text))
    assert free.predicted_loss < bound.predicted_loss
    by_size = UniformMagnitude(text).prune(model, masks, sparsity=sparsity)
    loss = 0.0
    images, labels = (torch.cat(part) for part in zip(*tiny_calibration().batches(), strict=True))
    for name in masks:
        fisher_KBB = oracles.fisher_blocks(model.eval(), name, masks[name], images, labels, block_size=32, damping=1e-4)
        change_KB = (by_size.weights[name] - model.get_parameter(name).detach()).double().reshape(-1, 32)
        loss += torch.einsum("ki,kij,kj->", change_KB, fisher_KBB, change_KB).item() / 2
    assert bound.predicted_loss < loss


@pytest.mark.parametrize("build", METHODS)
def test_earlier_groups_stay_pruned(build):
    model = tiny_vit()
    first = prune(build("block4"), model, full_masks(model), 0.4)
    apply(model, first)
    second = prune(build("block4"), model, first.masks, 0.6)
    for name, mask in second.masks.items():
        assert (first.masks[name] >= mask).all()
        assert (zeros_in_groups(mask, 4) % 4 == 0).all()


@pytest.mark.parametrize("build", METHODS)
def test_earlier_zeros_count_towards_n_of_m(build):
    model = tiny_vit()
    first = prune(build("3:4"), model, full_masks(model), 0.25)
    apply(model, first)
    second = prune(build("1:4"), model, first.masks, 0.75)
    for name, mask in second.masks.items():
        assert (first.masks[name] >= mask).all()
        assert (zeros_in_groups(mask, 4) == 3).all()


@pytest.mark.parametrize("build", MAGNITUDE)
def test_magnitude_keeps_the_largest_of_each_group(build):
    model = nn.Sequential(nn.Linear(8, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -4.0, 3.0, 2.0, 5.0, 5.0, 5.0, 5.0]]))
    masks = full_masks(model, ["0.weight"])
    pruned = build("2:4").prune(model, masks, sparsity=0.5)
    assert pruned.masks["0.weight"].int().tolist() == [[0, 1, 1, 0, 0, 0, 1, 1]]
    pruned = build("block4").prune(model, masks, sparsity=0.5)
    assert pruned.masks["0.weight"].int().tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]


def test_blocks_hold_whole_groups():
    model = tiny_vit()
    masks = full_masks(model, [NAME])
    problem = ovit("4:8", block_size=17).problem(model, masks, tiny_calibration())
    assert problem.block_size_of(masks[NAME]) == 32
    assert ovit("block4", block_size=2).problem(model, masks, tiny_calibration()).block_size_of(masks[NAME]) == 4


@pytest.mark.parametrize("build", METHODS)
def test_a_sparsity_that_the_pattern_does_not_mean_is_an_error(build):
    model = tiny_vit()
    with pytest.raises(PruningError, match="pattern 2:4 means a sparsity of 0.5, not 0.75"):
        prune(build("2:4"), model, full_masks(model), 0.75)


@pytest.mark.parametrize("build", METHODS)
@pytest.mark.parametrize("text", ["2:4", "block4"])
def test_larger_kernels_are_refused_by_name(build, text):
    model = tiny_convnet()
    with pytest.raises(PruningError, match=r"grouped\.weight has shape .* 1x1 convolutions"):
        prune(build(text), model, full_masks(model, ["head.weight", "grouped.weight"]), 0.5)


@pytest.mark.parametrize("build", METHODS)
def test_inputs_that_do_not_form_groups_are_refused_by_name(build):
    model = tiny_convnet()
    with pytest.raises(PruningError, match=r"head\.weight has 12 inputs, which do not form groups of 8"):
        prune(build("4:8"), model, full_masks(model, ["head.weight"]), 0.5)


def test_convolutions_of_one_pixel_take_patterns():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(4 * 256, 10))
    pruned = prune(ovit("2:4"), model, full_masks(model, ["1.weight"]), 0.5)
    assert (zeros_in_groups(pruned.masks["1.weight"], 4) == 2).all()


@pytest.mark.parametrize("build", METHODS)
@pytest.mark.parametrize("text", ["2:4", "block4"])
def test_earlier_zeros_that_do_not_fit_are_refused_by_name(build, text):
    model = tiny_vit()
    masks = full_masks(model, [NAME])
    masks[NAME][0, :3] = False
    with torch.no_grad():
        model.get_parameter(NAME)[0, :3] = 0
    with pytest.raises(PruningError, match=rf"1 groups of blocks\.0\.mlp\.fc1\.weight .* do not fit in pattern {text}"):
        prune(build(text), model, masks, 0.5)


@pytest.mark.parametrize("text", ["4:2", "4:4", "0:4", "block", "block1", "2/4", "structured", ""])
@pytest.mark.parametrize("build", METHODS)
def test_a_pattern_that_is_none_is_an_error(build, text):
    with pytest.raises(PruningError, match="unknown pattern"):
        build(text)


def test_a_rounded_sparsity_is_understood():
    model = nn.Sequential(nn.Linear(9, 4))
    masks = full_masks(model, ["0.weight"])
    assert parse_pattern("1:3").num_zeros(masks, 0.667) == 24
