"""Bounds, prices and shares of layers: by curves and by whole layers, for every kind of method."""

from itertools import product

import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_convnet, tiny_vit
from hypothesis import given, settings
from hypothesis import strategies as st

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import (
    MFAC,
    OBC,
    FastOViT,
    GlobalMagnitude,
    GradientWeight,
    OViT,
    SparseGPT,
    Spread,
    UniformMagnitude,
    Wanda,
    WoodFisher,
    apply,
)
from ovit_deploy.pruning.allocation import Curve, allocate
from ovit_deploy.pruning.hessian import images_for
from ovit_deploy.pruning.owl import offsets, outlier_ratio
from ovit_deploy.pruning.prices import flops_per_weight
from ovit_deploy.pruning.shares import erk_shares
from ovit_deploy.pruning.spread import Layers, warn_of_collapse

PROJ, FC1 = "blocks.0.attn.proj.weight", "blocks.1.mlp.fc1.weight"
CONVOLUTIONS = ["stem.weight", "grouped.weight", "depthwise.weight", "head.weight"]
BY_LOSS = ["hull", "marginal", "cumulative"]
RULES = [*BY_LOSS, "uniform", "erk", "owl"]
FISHER = {"num_grads": 16, "memory_budget": 2**28}
METHODS = {
    "OViT": lambda **more: OViT(block_size=32, damping=1e-4, **FISHER, **more),
    "WoodFisher": lambda **more: WoodFisher(block_size=32, damping=1e-4, **FISHER, **more),
    "MFAC": lambda **more: MFAC(block_size=64, damping=1e-4, **FISHER, **more),
    "GradientWeight": lambda **more: GradientWeight(**FISHER, **more),
    "UniformMagnitude": UniformMagnitude,
    "FastOViT": lambda **more: FastOViT(block_size=32, num_grads=16, columns=8, **more),
    "SparseGPT": lambda **more: SparseGPT(num_samples=16, columns=8, **more),
    "OBC": lambda **more: OBC(num_samples=16, **more),
    "Wanda": lambda **more: Wanda(num_samples=16, **more),
}


def prune(method, model, masks, sparsity):
    return method.prune(model, masks, sparsity=sparsity, calibration=tiny_calibration(16))


def sparsities(pruned):
    return {name: float((~mask).double().mean()) for name, mask in pruned.masks.items()}


def zeros_in(pruned):
    return sum(int((~mask).sum()) for mask in pruned.masks.values())


@st.composite
def problems(draw):
    """Curves of a few layers with earlier zeros, bounds that leave room, and a total within them."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    curves, bounds, shapes = {}, {}, {}
    for name in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        num_blocks, size = draw(st.integers(1, 3)), draw(st.integers(1, 6))
        there = draw(st.integers(0, size))
        rank_KB = torch.stack([torch.randperm(size) + 1 for _ in range(num_blocks)]).int() - there
        losses_KB = torch.rand(num_blocks, size) * 10 ** draw(st.integers(-2, 2))
        curves[name] = Curve(rank_KB.clamp(min=0), losses_KB.masked_fill(rank_KB <= 0, 0))
        total, present = num_blocks * size, num_blocks * there
        bounds[name] = tuple(sorted((draw(st.integers(0, total)), draw(st.integers(present, total)))))
        shapes[name] = (num_blocks, size)
    least = sum(
        max(low, curve.rank_KB.numel() - curve.removable())
        for (low, _), curve in zip(bounds.values(), curves.values(), strict=True)
    )
    most = sum(high for _, high in bounds.values())
    return curves, Layers(shapes, bounds, offsets=dict.fromkeys(curves, 0.0)), draw(st.integers(least, most))


@settings(max_examples=200, deadline=None)
@given(problem=problems(), rule=st.sampled_from([*BY_LOSS, "owl"]))
def test_bounds_hold_and_totals_are_exact_under_every_rule(problem, rule):
    curves, layers, num_zeros = problem
    counts = allocate(curves, num_zeros, rule=rule, layers=layers)
    assert list(counts) == list(curves)
    zeros = {name: int(counts[name].sum()) + curves[name].rank_KB.numel() - curves[name].removable() for name in curves}
    assert sum(zeros.values()) == num_zeros
    for name, (low, high) in layers.bounds.items():
        assert low <= zeros[name] <= high
        assert ((counts[name] >= 0) & (counts[name] <= (curves[name].rank_KB > 0).sum(dim=1))).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rule=st.sampled_from(["hull", "marginal"]))
def test_for_rising_marginals_no_other_counts_within_bounds_cost_less(data, rule):
    steps = {name: sorted(data.draw(st.lists(st.floats(0, 1, width=16), min_size=4, max_size=4))) for name in "abc"}
    curves = {name: Curve(torch.arange(1, 5, dtype=torch.int32)[None], torch.tensor([s])) for name, s in steps.items()}
    bounds = {name: tuple(sorted(data.draw(st.tuples(st.integers(0, 4), st.integers(0, 4))))) for name in steps}
    least, most = (sum(pair[side] for pair in bounds.values()) for side in (0, 1))
    total = data.draw(st.integers(least, most))
    counts = allocate(curves, total, rule=rule, layers=Layers(bounds=bounds))
    options = product(*(range(low, high + 1) for low, high in bounds.values()))
    best = min(
        sum(sum(s[:n]) for s, n in zip(steps.values(), option, strict=True))
        for option in options
        if sum(option) == total
    )
    assert sum(sum(steps[name][: int(counts[name])]) for name in steps) == pytest.approx(best)


@pytest.mark.parametrize("name", METHODS)
def test_floors_and_ceilings_hold_for_every_method(name):
    model = tiny_vit()
    masks = full_masks(model)
    spread = Spread(min_sparsity=0.35, max_sparsity={"re:.*fc1": 0.45, PROJ: 0.4})
    pruned = prune(METHODS[name](spread=spread), model, masks, 0.6)
    assert zeros_in(pruned) == round(0.6 * sum(mask.numel() for mask in masks.values()))
    for target, sparsity in sparsities(pruned).items():
        ceiling = 0.4 if target == PROJ else 0.45 if "fc1" in target else 1.0
        assert 0.35 <= sparsity <= ceiling


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("allocation", ["erk", "owl"])
def test_shares_of_layers_are_met_by_every_method(name, allocation):
    model = tiny_convnet()
    masks = full_masks(model, CONVOLUTIONS)
    spread = Spread(owl_samples=16, owl_threshold=2.0)
    pruned = prune(METHODS[name](allocation=allocation, spread=spread), model, masks, 0.5)
    assert zeros_in(pruned) == round(0.5 * 804)
    found = {target: int((~mask).sum()) for target, mask in pruned.masks.items()}
    if allocation == "erk":
        assert found == erk_shares({target: tuple(mask.shape) for target, mask in masks.items()}, 402)
    else:
        shares = sparsities(pruned)
        assert 0.1 < max(shares.values()) - min(shares.values()) < 0.16 + 0.02


def test_erk_shares_count_whole_blocks():
    model = tiny_vit()
    masks = full_masks(model)
    pruned = UniformMagnitude("2x4", "erk").prune(model, masks, sparsity=0.8)
    shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
    total = round(0.8 * sum(mask.numel() for mask in masks.values()) / 8)
    expected = erk_shares(shapes, total, unit=8)
    assert {name: int((~mask).sum()) // 8 for name, mask in pruned.masks.items()} == expected
    assert len(set(sparsities(pruned).values())) > 1


def test_outliers_are_counted_as_the_paper_does():
    weight, norm_GI = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, 10.0]]), torch.tensor([[1.0, 1.0, 2.0]])
    everything = torch.ones(2, 3, dtype=torch.bool)
    assert outlier_ratio(weight, everything, norm_GI, 3.0) == pytest.approx(1 / 6)  # the mean is 26 / 6
    assert outlier_ratio(weight, everything, norm_GI, 5.0) == 0.0
    assert offsets({"a": 0.0, "b": 0.01, "c": 0.02}, 0.08) == pytest.approx({"a": 0.0, "b": -0.08, "c": -0.16})
    assert offsets({"a": 0.3, "b": 0.3}, 0.08) == {"a": 0.0, "b": 0.0}


def test_owl_goes_on_from_earlier_zeros_whatever_its_shares_were():
    model = tiny_vit()
    first = GlobalMagnitude().prune(model, full_masks(model), sparsity=0.5)
    apply(model, first)
    second = prune(UniformMagnitude(allocation="owl", spread=Spread(owl_samples=16)), model, first.masks, 0.55)
    assert zeros_in(second) == round(0.55 * sum(mask.numel() for mask in first.masks.values()))
    assert all((first.masks[name] >= mask).all() for name, mask in second.masks.items())


def test_a_layer_that_is_sparser_than_its_erk_share_is_an_error():
    model = tiny_vit()
    masks = full_masks(model)
    masks[PROJ][:] = False
    with torch.no_grad():
        model.get_parameter(PROJ).zero_()
    with pytest.raises(PruningError, match="proj.weight has 1024 zeros already, erk sparsity wants"):
        UniformMagnitude(allocation="erk").prune(model, masks, sparsity=0.5)


def test_flops_are_two_for_each_token_or_pixel():
    images = images_for("the test", tiny_calibration(3), 3)
    vit = flops_per_weight(tiny_vit(), [PROJ, "head.weight", "patch_embed.proj.weight"], images)
    assert vit == {PROJ: 10, "head.weight": 2, "patch_embed.proj.weight": 8}
    assert flops_per_weight(tiny_convnet(), ["stem.weight", "grouped.weight", "head.weight"], images) == {
        "stem.weight": 2 * 64,
        "grouped.weight": 2 * 64,
        "head.weight": 2,
    }


@pytest.mark.parametrize("name", ["OViT", "WoodFisher", "MFAC", "GradientWeight", "GlobalMagnitude"])
def test_flops_as_price_prune_the_layers_that_cost_more(name):
    model = tiny_vit()
    masks = full_masks(model, [PROJ, "head.weight"])
    build = METHODS.get(name, GlobalMagnitude)
    plain, priced = (prune(build(spread=Spread(price=price)), model, masks, 0.5) for price in ("weights", "flops"))
    assert zeros_in(plain) == zeros_in(priced) == 672
    assert sparsities(priced)[PROJ] > sparsities(plain)[PROJ]


@pytest.mark.parametrize("build", [GlobalMagnitude, UniformMagnitude])
def test_bounds_that_leave_no_room_are_refused(build):
    model = tiny_vit()
    masks = full_masks(model)
    with pytest.raises(PruningError, match="zeros cannot be had: the bounds of the layers add up to"):
        build(spread=Spread(max_sparsity=0.7)).prune(model, masks, sparsity=0.75)
    with pytest.raises(PruningError, match="at least .* zeros and may have at most"):
        build(spread=Spread(min_sparsity=0.6, max_sparsity={PROJ: 0.5})).prune(model, masks, sparsity=0.7)
    with pytest.raises(PruningError, match="bounds on sparsity: no parameter is named 'head'"):
        build(spread=Spread(max_sparsity={"head": 0.5})).prune(model, masks, sparsity=0.7)


def test_a_bound_means_the_decimal_number_that_was_written():
    bounds = Spread(min_sparsity=0.3, max_sparsity=0.7).bounds({"a": torch.ones(10, 10, dtype=torch.bool)}, 1)
    assert bounds == {"a": (30, 70)}


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(PruningError, match=r"max_sparsity 1\.5 is not in"):
        Spread(max_sparsity={PROJ: 1.5})
    with pytest.raises(PruningError, match="unknown price 'latency'"):
        Spread(price="latency")
    with pytest.raises(PruningError, match="OWL wants"):
        Spread(owl_range=0.6)
    with pytest.raises(PruningError, match="unknown allocation 'hull'"):
        UniformMagnitude(allocation="hull")
    with pytest.raises(PruningError, match="prices have no meaning with erk shares"):
        OViT(allocation="erk", spread=Spread(price="flops"))


@pytest.mark.parametrize("name", METHODS)
def test_a_pattern_that_fixes_every_layer_leaves_nothing_to_spread(name):
    with pytest.raises(PruningError, match="2:4 gives every layer the same sparsity: bounds on layers cannot be had"):
        METHODS[name](pattern="2:4", spread=Spread(max_sparsity=0.9))
    with pytest.raises(PruningError, match="2:4 gives every layer the same sparsity: allocation erk cannot be had"):
        METHODS[name](pattern="2:4", allocation="erk")


def test_what_looks_at_images_needs_some():
    model = tiny_vit()
    with pytest.raises(PruningError, match="OWL needs calibration images"):
        UniformMagnitude(allocation="owl").prune(model, full_masks(model), sparsity=0.5)
    with pytest.raises(PruningError, match="the price in FLOPs needs calibration images"):
        GlobalMagnitude(spread=Spread(price="flops")).prune(model, full_masks(model), sparsity=0.5)


def test_a_layer_that_is_all_but_gone_is_told_of():
    lines = []
    masks = {"fine": torch.ones(10, 100, dtype=torch.bool), "gone": torch.zeros(10, 100, dtype=torch.bool)}
    masks["gone"][0, :4] = True
    warn_of_collapse(masks, lines.append)
    assert len(lines) == 1
    assert "gone is 99.60% zeros" in lines[0] and "max_sparsity" in lines[0]
