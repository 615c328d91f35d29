import pytest
import torch
from cases import fisher_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from ovit_deploy.errors import PruningError
from ovit_deploy.kernels.eliminate import eliminate
from ovit_deploy.kernels.hull import hull_slopes
from ovit_deploy.pruning.allocation import Curve, allocate
from ovit_deploy.pruning.spread import Layers

RULES = ["hull", "marginal", "cumulative", "uniform"]


def curve_of(num_blocks, block_size, seed, kept=1.0, scale=1.0):
    w_KB, fisher_KBB = fisher_problem(num_blocks, block_size, seed)
    active_KB = torch.rand(num_blocks, block_size, generator=torch.Generator().manual_seed(seed)) < kept
    found = eliminate(scale * w_KB, fisher_KBB.inverse(), active_KB)
    return Curve(found.rank_KB, found.marginal_KB)


def total_loss(curves, counts):
    return sum(
        float(curve.marginal_KB[(curve.rank_KB > 0) & (curve.rank_KB <= counts[name][:, None])].sum())
        for name, curve in curves.items()
    )


def curve_from(steps):
    """A curve whose weights go in the order they stand."""
    steps_KB = torch.tensor(steps)
    return Curve(torch.arange(1, steps_KB.shape[1] + 1, dtype=torch.int32).expand(steps_KB.shape), steps_KB)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    sparsity=st.floats(0.0, 1.0),
    rule=st.sampled_from(RULES),
    kept=st.sampled_from([1.0, 0.8]),
    ties=st.booleans(),
)
def test_every_rule_meets_the_total_exactly(seed, sparsity, rule, kept, ties):
    sizes = {"a": (5, 8), "b": (3, 12), "c": (1, 1)}
    curves = {name: curve_of(*size, seed, kept) for name, size in sizes.items()}
    if ties:
        curves = {name: Curve(curve.rank_KB, curve.marginal_KB.round(decimals=1)) for name, curve in curves.items()}
    total, removable = 77, sum(curve.removable() for curve in curves.values())
    zeros = total - removable + round(sparsity * removable)
    if rule == "uniform" and kept < 1:
        zeros = total
    counts = allocate(curves, zeros, rule=rule)
    assert sum(int(counts_K.sum()) for counts_K in counts.values()) == zeros - (total - removable)
    for name, curve in curves.items():
        assert ((counts[name] >= 0) & (counts[name] <= (curve.rank_KB > 0).sum(1))).all()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sparsity", [0.3, 0.6, 0.9])
def test_the_hull_predicts_the_least_loss_and_the_marginal_rule_less_than_the_paper(seed, sparsity):
    curves = {"a": curve_of(60, 24, seed), "b": curve_of(40, 32, seed + 1, scale=0.5)}
    loss = {rule: total_loss(curves, allocate(curves, round(sparsity * 2720), rule=rule)) for rule in RULES}
    assert loss["hull"] <= min(loss.values()) * (1 + 1e-12)
    assert loss["marginal"] <= loss["cumulative"]
    assert loss["hull"] < loss["uniform"]


def least_losses(curves):
    """The least loss for each total, by min-plus convolution of all blocks' curves."""
    best_N = torch.zeros(1, dtype=torch.float64)
    for curve in curves.values():
        for steps_B in curve.steps():
            losses_B = torch.cat([torch.zeros(1), steps_B.cumsum(0)])
            longer_N = torch.full((len(best_N) + len(steps_B),), torch.inf, dtype=torch.float64)
            for k, loss in enumerate(losses_B):
                longer_N[k : k + len(best_N)] = longer_N[k : k + len(best_N)].minimum(best_N + loss)
            best_N = longer_N
    return best_N


@pytest.mark.parametrize("seed", range(5))
def test_the_hull_is_optimal_at_its_corners_and_close_between_them(seed):
    curves = {"a": curve_of(4, 9, seed), "b": curve_of(5, 6, seed + 50)}
    best_N = least_losses(curves)
    slopes_N = hull_slopes(best_N.diff()[None])[0]
    for total in range(1, 66):
        loss = total_loss(curves, allocate(curves, total))
        assert loss >= best_N[total] * (1 - 1e-9)
        assert loss <= best_N[total] * 1.25
        if slopes_N[total] > slopes_N[total - 1]:
            assert loss == pytest.approx(float(best_N[total]))


def test_the_hull_takes_a_costly_step_for_the_cheap_ones_behind_it():
    curves = {"a": curve_from([[3.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])}
    assert allocate(curves, 4, rule="hull")["a"].tolist() == [4, 0]
    assert allocate(curves, 4, rule="marginal")["a"].tolist() == [0, 4]


def test_what_is_left_between_two_corners_goes_by_the_marginal_rule():
    curves = {"a": curve_from([[3.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])}
    assert allocate(curves, 3, rule="hull")["a"].tolist() == [0, 3]
    assert allocate(curves, 6, rule="hull")["a"].tolist() == [4, 2]


def test_the_cumulative_rule_is_one_threshold_on_the_loss_so_far():
    curves = {"a": curve_from([[1.0, 1.0, 1.0]]), "b": curve_from([[2.5, 0.0, 0.0]])}
    counts = allocate(curves, 4, rule="cumulative")
    assert (counts["a"].tolist(), counts["b"].tolist()) == ([2], [2])


def test_uniform_gives_every_layer_the_same_sparsity():
    curves = {"a": curve_of(10, 10, 0), "b": curve_of(5, 8, 1, scale=100.0)}
    counts = allocate(curves, 105, rule="uniform")
    assert (int(counts["a"].sum()), int(counts["b"].sum())) == (75, 30)


def test_weights_pruned_before_count():
    curves = {"a": curve_of(6, 10, 0, kept=0.5), "b": curve_of(6, 10, 0)}
    present = 60 - curves["a"].removable()
    assert sum(int(counts_K.sum()) for counts_K in allocate(curves, present).values()) == 0
    with pytest.raises(PruningError, match="are there already"):
        allocate(curves, present - 1)
    with pytest.raises(PruningError, match="a has .* zeros already"):
        allocate(curves, present + 2, rule="uniform")


@pytest.mark.parametrize("rule", ["hull", "marginal", "cumulative"])
def test_a_dearer_layer_is_pruned_more(rule):
    curves = {"a": curve_of(20, 16, 0), "b": curve_of(20, 16, 1)}
    plain = allocate(curves, 400, rule=rule)
    priced = allocate(curves, 400, rule=rule, layers=Layers(prices={"a": 4.0}))
    assert priced["a"].sum() > plain["a"].sum()
    assert priced["a"].sum() + priced["b"].sum() == 400


def test_the_same_price_everywhere_changes_nothing():
    curves = {"a": curve_of(20, 16, 0), "b": curve_of(20, 16, 1)}
    plain, priced = allocate(curves, 333), allocate(curves, 333, layers=Layers(prices={"a": 2.0, "b": 2.0}))
    assert all(torch.equal(plain[name], priced[name]) for name in curves)


def test_nothing_unknown_falls_back_to_something_else():
    curves = {"a": curve_of(2, 4, 0)}
    with pytest.raises(PruningError, match="unknown allocation 'globl'"):
        allocate(curves, 4, rule="globl")
    with pytest.raises(PruningError, match="prices have no meaning"):
        allocate(curves, 4, rule="uniform", layers=Layers(prices={"a": 2.0}))
    with pytest.raises(PruningError, match="b has a price"):
        allocate(curves, 4, layers=Layers(prices={"b": 2.0}))
    with pytest.raises(PruningError, match="price of a is 0"):
        allocate(curves, 4, layers=Layers(prices={"a": 0.0}))
