from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.shares import erk_shares, shifted_shares, uniform_shares

SHAPES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2),
    st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=6,
)
SIDE = st.floats(0, 1)


def shares_by(rule, shapes, total, offsets, bounds=None):
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    if rule == "erk":
        return erk_shares(shapes, total, bounds=bounds)
    if rule == "uniform":
        return uniform_shares(sizes, total, bounds=bounds)
    return shifted_shares(sizes, total, dict(zip(sizes, offsets, strict=False)), bounds=bounds)


@settings(max_examples=200, deadline=None)
@given(
    rule=st.sampled_from(["erk", "uniform", "shifted"]),
    shapes=SHAPES,
    where=SIDE,
    sides=st.lists(st.tuples(SIDE, SIDE), min_size=6, max_size=6),
    offsets=st.lists(st.floats(-1, 1), min_size=6, max_size=6),
)
def test_totals_are_exact_and_bounds_hold(rule, shapes, where, sides, offsets):
    bounds = {}
    for (name, shape), pair in zip(shapes.items(), sides, strict=False):
        low, high = sorted(round(side * prod(shape)) for side in pair)
        bounds[name] = (low, high)
    least, most = (sum(pair[side] for pair in bounds.values()) for side in (0, 1))
    total = least + round(where * (most - least))
    found = shares_by(rule, shapes, total, offsets, bounds)
    assert sum(found.values()) == total
    assert all(low <= found[name] <= high for name, (low, high) in bounds.items())


@settings(max_examples=100, deadline=None)
@given(shapes=SHAPES, sparsity=SIDE)
def test_erk_is_the_density_of_its_formula_to_within_one_weight(shapes, sparsity):
    total = round(sparsity * sum(map(prod, shapes.values())))
    found = erk_shares(shapes, total)
    low, high = 0.0, 1e9
    for _ in range(200):  # bisection on the scale of the densities, in floating point
        middle = (low + high) / 2
        zeros = {name: prod(s) * max(0.0, 1 - middle * sum(s) / prod(s)) for name, s in shapes.items()}
        low, high = (middle, high) if sum(zeros.values()) > total else (low, middle)
    assert all(abs(found[name] - zeros[name]) < 1 + 1e-3 for name in shapes)


@settings(max_examples=100, deadline=None)
@given(shapes=SHAPES, sparsity=SIDE)
def test_uniform_is_one_sparsity_to_within_one_weight(shapes, sparsity):
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    total = round(sparsity * sum(sizes.values()))
    found = uniform_shares(sizes, total)
    assert all(abs(found[name] - total * size / sum(sizes.values())) < 1 for name, size in sizes.items())


def test_erk_keeps_small_layers_dense_and_makes_large_ones_sparser():
    shapes = {"small": (4, 4), "medium": (64, 64), "large": (256, 64), "kernel": (64, 64, 3, 3)}
    found = erk_shares(shapes, 45_000)
    sparsity = {name: found[name] / prod(shape) for name, shape in shapes.items()}
    assert found["small"] == 0
    assert 0 < sparsity["medium"] < sparsity["large"] < sparsity["kernel"] < 1


def test_shifted_sparsities_differ_by_their_offsets():
    found = shifted_shares({"a": 1000, "b": 3000}, 2000, {"a": 0.1, "b": -0.1})
    assert found == {"a": 650, "b": 1350}


def test_what_bounds_take_from_one_layer_the_others_give():
    assert uniform_shares({"a": 100, "b": 100, "c": 100}, 150, bounds={"a": (0, 20)}) == {"a": 20, "b": 65, "c": 65}


def test_totals_that_bounds_do_not_allow_are_refused():
    with pytest.raises(PruningError, match="add up to between 30 and 120"):
        uniform_shares({"a": 100, "b": 100}, 121, bounds={"a": (30, 60), "b": (0, 60)})
    with pytest.raises(PruningError, match="a has at least 7 zeros and may have at most 5"):
        erk_shares({"a": (10, 10)}, 6, bounds={"a": (7, 5)})


def test_nothing_to_share_is_no_share():
    assert uniform_shares({}, 0) == {}
