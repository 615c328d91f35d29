from itertools import combinations

import oracles
import pytest
import torch
from cases import fisher_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from ovit_deploy.kernels.eliminate import eliminate, eliminate_groups

BACKENDS = ["cpu", "reference"]


def everything(w_KB):
    return torch.ones_like(w_KB, dtype=torch.bool)


def members(groups, size):
    return [group * size + s for group in groups for s in range(size)]


def zeros_per_group(weights_KB, group):
    return (weights_KB == 0).unflatten(1, (-1, group)).sum(dim=2)


def some_groups_inactive(num_blocks, num_groups, group, kept, draw):
    return (torch.rand(num_blocks, num_groups, generator=draw) < kept).repeat_interleave(group, dim=1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("group", "limit"), [(4, 2), (4, 3), (4, 1), (8, 4), (3, 2)])
def test_every_group_is_taken_to_its_limit_and_the_rest_takes_its_best_values(backend, group, limit):
    w_KB, fisher_KBB = fisher_problem(3, 24)
    found = eliminate(w_KB, fisher_KBB.inverse(), everything(w_KB), group=group, limit=limit, backend=backend)
    assert (zeros_per_group(found.weights_KB, group) == limit).all()
    for b in range(3):
        gone = (found.rank_KB[b] > 0).nonzero().flatten().tolist()
        torch.testing.assert_close(found.weights_KB[b], oracles.best_rest(w_KB[b], fisher_KBB[b], gone))
        loss = oracles.joint_loss(w_KB[b], fisher_KBB[b], gone)
        assert float(found.marginal_KB[b].sum()) == pytest.approx(loss)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_step_takes_the_cheapest_weight_of_an_open_group(backend):
    w_KB, fisher_KBB = fisher_problem(1, 12)
    found = eliminate(w_KB, fisher_KBB.inverse(), everything(w_KB), group=4, limit=2, backend=backend)
    gone: list[int] = []
    for turn in range(1, 7):
        free = [p for p in range(12) if p not in gone and sum(q // 4 == p // 4 for q in gone) < 2]
        losses = {p: oracles.joint_loss(w_KB[0], fisher_KBB[0], [*gone, p]) for p in free}
        gone.append(min(losses, key=lambda p: losses[p]))
        assert int(found.rank_KB[0, gone[-1]]) == turn


@pytest.mark.parametrize("backend", BACKENDS)
def test_inactive_weights_count_towards_the_limit(backend):
    w_KB, fisher_KBB = fisher_problem(1, 12)
    active_KB = torch.tensor([[False, True, True, True] + [False, False, True, True] + [True] * 4])
    found = eliminate(w_KB * active_KB, fisher_KBB.inverse(), active_KB, group=4, limit=2, backend=backend)
    assert (found.rank_KB > 0).unflatten(1, (-1, 4)).sum(dim=2).tolist() == [[1, 0, 2]]
    assert (zeros_per_group(found.weights_KB, 4) == 2).all()


@settings(max_examples=20, deadline=None)
@given(
    num_blocks=st.integers(1, 40),
    num_groups=st.integers(1, 8),
    group=st.integers(2, 5),
    seed=st.integers(0, 10_000),
    data=st.data(),
)
def test_the_compiled_kernel_closes_the_groups_of_the_reference(num_blocks, num_groups, group, seed, data):
    limit = data.draw(st.integers(1, group))
    w_KB, fisher_KBB = fisher_problem(num_blocks, num_groups * group, seed)
    active_KB = torch.rand(w_KB.shape, generator=torch.Generator().manual_seed(seed)) < 0.8
    inputs = w_KB, fisher_KBB.inverse(), active_KB
    fast = eliminate(*inputs, group=group, limit=limit)
    slow = eliminate(*inputs, group=group, limit=limit, backend="reference")
    assert torch.equal(fast.rank_KB, slow.rank_KB)
    torch.testing.assert_close(fast.marginal_KB, slow.marginal_KB)
    torch.testing.assert_close(fast.weights_KB, slow.weights_KB)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("num_groups", "group"), [(1, 4), (6, 4), (5, 3), (9, 2)])
def test_losses_of_groups_add_up_to_the_joint_obs_loss(backend, num_groups, group):
    w_KB, fisher_KBB = fisher_problem(3, num_groups * group)
    found = eliminate_groups(w_KB, fisher_KBB.inverse(), everything(w_KB), group=group, backend=backend)
    assert found.rank_KB.shape == found.marginal_KB.shape == (3, num_groups)
    for b in range(3):
        order = found.rank_KB[b].argsort()
        for count in range(1, num_groups + 1):
            gone = members(order[:count].tolist(), group)
            loss = float(found.marginal_KB[b, order[:count]].sum())
            assert loss == pytest.approx(oracles.joint_loss(w_KB[b], fisher_KBB[b], gone))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_what_is_left_of_a_block_takes_its_best_values(backend, count):
    w_KB, fisher_KBB = fisher_problem(4, 20)
    counts_K = torch.full((4,), count)
    found = eliminate_groups(w_KB, fisher_KBB.inverse(), everything(w_KB), counts_K, group=4, backend=backend)
    for b in range(4):
        gone = members((found.rank_KB[b] > 0).nonzero().flatten().tolist(), 4)
        assert len(gone) == 4 * count
        assert (found.weights_KB[b][gone] == 0).all()
        torch.testing.assert_close(found.weights_KB[b], oracles.best_rest(w_KB[b], fisher_KBB[b], gone))


@settings(max_examples=25, deadline=None)
@given(
    num_groups=st.integers(1, 5),
    group=st.integers(2, 3),
    seed=st.integers(0, 10_000),
    condition=st.sampled_from([1.0, 30.0, 1e3]),
)
def test_greedy_groups_start_at_the_brute_force_optimum_and_never_fall_below_it(num_groups, group, seed, condition):
    w_KB, fisher_KBB = fisher_problem(1, num_groups * group, seed, condition)
    found = eliminate_groups(w_KB, fisher_KBB.inverse(), everything(w_KB), group=group)
    loss_G = found.marginal_KB[0][found.rank_KB[0].argsort()].cumsum(0)
    for count in range(1, num_groups + 1):
        sets = combinations(range(num_groups), count)
        optimum = min(oracles.joint_loss(w_KB[0], fisher_KBB[0], members(chosen, group)) for chosen in sets)
        assert loss_G[count - 1] >= optimum * (1 - 1e-9)
        if count in (1, num_groups):
            assert loss_G[count - 1] == pytest.approx(optimum)


@settings(max_examples=20, deadline=None)
@given(
    num_blocks=st.integers(1, 40),
    num_groups=st.integers(1, 12),
    group=st.integers(2, 5),
    seed=st.integers(0, 10_000),
    kept=st.floats(0.0, 1.0),
)
def test_the_compiled_kernel_removes_the_groups_of_the_reference(num_blocks, num_groups, group, seed, kept):
    w_KB, fisher_KBB = fisher_problem(num_blocks, num_groups * group, seed)
    draw = torch.Generator().manual_seed(seed)
    active_KB = some_groups_inactive(num_blocks, num_groups, group, kept, draw)
    counts_K = (active_KB.sum(1) / group * torch.rand(num_blocks, generator=draw)).round().long()
    inputs = w_KB, fisher_KBB.inverse(), active_KB, counts_K
    fast = eliminate_groups(*inputs, group=group)
    slow = eliminate_groups(*inputs, group=group, backend="reference")
    assert torch.equal(fast.rank_KB, slow.rank_KB)
    torch.testing.assert_close(fast.marginal_KB, slow.marginal_KB)
    torch.testing.assert_close(fast.weights_KB, slow.weights_KB)


def test_groups_of_one_are_single_weights():
    w_KB, fisher_KBB = fisher_problem(5, 17)
    single = eliminate(w_KB, fisher_KBB.inverse(), everything(w_KB))
    groups = eliminate_groups(w_KB, fisher_KBB.inverse(), everything(w_KB), group=1)
    assert torch.equal(groups.rank_KB, single.rank_KB)
    torch.testing.assert_close(groups.marginal_KB, single.marginal_KB)


@pytest.mark.parametrize("condition", [1e12, 1e15])
def test_nearly_singular_groups_give_finite_losses(condition):
    w_KB, fisher_KBB = fisher_problem(4, 64, condition=condition)
    found = eliminate_groups(w_KB, fisher_KBB.inverse(), everything(w_KB), group=4)
    assert found.marginal_KB.isfinite().all()
    assert torch.equal(found.rank_KB.sort(dim=1).values, torch.arange(1, 17, dtype=torch.int32).expand(4, 16))
