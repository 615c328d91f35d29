import oracles
import pytest
import torch
from cases import fisher_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from ovit_deploy.kernels.eliminate import eliminate
from ovit_deploy.kernels.swap import swapped


def start_of(w_KB, fisher_KBB, active_KB, count):
    """What greedy elimination keeps after ``count`` removals a block."""
    finv_KBB = torch.zeros_like(fisher_KBB)
    for b, active_B in enumerate(active_KB):
        at = active_B.nonzero().flatten()
        finv_KBB[b][at[:, None], at] = torch.linalg.inv(fisher_KBB[b][at[:, None], at])
    counts_K = torch.full((len(w_KB),), count)
    found = eliminate(w_KB, finv_KBB, active_KB, counts_K)
    return active_KB & (found.rank_KB == 0)


def loss_of(w_B, fisher_BB, active_B, kept_B):
    """Removing what is active and not kept, over the active weights, by the closed form."""
    at = active_B.nonzero().flatten()
    gone = (~kept_B[at]).nonzero().flatten().tolist()
    return oracles.joint_loss(w_B[at], fisher_BB[at[:, None], at], gone) if gone else 0.0


def swaps_of(active_B, kept_B, group):
    for j in (active_B & ~kept_B).nonzero().flatten().tolist():
        for i in kept_B.nonzero().flatten().tolist():
            if i // group == j // group:
                other_B = kept_B.clone()
                other_B[i], other_B[j] = False, True
                yield other_B


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(1, 4),
    group=st.sampled_from([2, 4, 100]),
    seed=st.integers(0, 10_000),
    condition=st.sampled_from([1.0, 30.0, 1e3]),
    kept=st.sampled_from([1.0, 0.8]),
    data=st.data(),
)
def test_no_single_swap_is_left_that_lowers_the_loss(size, group, seed, condition, kept, data):
    w_KB, fisher_KBB = fisher_problem(2, 2 * size, seed, condition)
    active_KB = torch.rand(2, 2 * size, generator=torch.Generator().manual_seed(seed)) < kept
    w_KB = w_KB * active_KB
    count = data.draw(st.integers(0, int(active_KB.sum(1).min())))
    before_KB = start_of(w_KB, fisher_KBB, active_KB, count)
    after_KB = swapped(w_KB, fisher_KBB, active_KB, before_KB, group=group)
    assert torch.equal(after_KB.sum(1), before_KB.sum(1))
    assert not (after_KB & ~active_KB).any()
    for b in range(2):
        block = w_KB[b], fisher_KBB[b], active_KB[b]
        whole = loss_of(*block, torch.zeros_like(active_KB[b]))
        loss = loss_of(*block, after_KB[b])
        assert loss <= loss_of(*block, before_KB[b]) + 1e-9 * whole
        assert all(
            loss <= loss_of(*block, other_B) + 1e-8 * whole for other_B in swaps_of(active_KB[b], after_KB[b], group)
        )


def test_the_first_swap_is_the_best_of_all():
    w_KB, fisher_KBB = fisher_problem(1, 10, seed=3, condition=1e3)
    active_KB = torch.ones_like(w_KB, dtype=torch.bool)
    bad_KB = torch.tensor([[True] * 5 + [False] * 5])
    block = w_KB[0], fisher_KBB[0], active_KB[0]
    best_B = bad_KB[0]
    while True:
        swaps = [best_B, *swaps_of(active_KB[0], best_B, 10)]
        next_B = min(swaps, key=lambda kept_B: loss_of(*block, kept_B))
        if next_B is best_B:
            break
        best_B = next_B
    assert torch.equal(swapped(w_KB, fisher_KBB, active_KB, bad_KB, group=10)[0], best_B)
    assert not torch.equal(best_B, bad_KB[0])


def test_swaps_help_more_the_worse_the_condition():
    gains = {}
    for condition in (1.0, 30.0, 1e3):
        w_KB, fisher_KBB = fisher_problem(10, 48, condition=condition)
        active_KB = torch.ones_like(w_KB, dtype=torch.bool)
        before_KB = start_of(w_KB, fisher_KBB, active_KB, 36)
        after_KB = swapped(w_KB, fisher_KBB, active_KB, before_KB, group=48)
        before, after = (
            sum(loss_of(w_KB[b], fisher_KBB[b], active_KB[b], kept_KB[b]) for b in range(10))
            for kept_KB in (before_KB, after_KB)
        )
        gains[condition] = 1 - after / before
    assert gains[1.0] == pytest.approx(0)
    assert 0.01 < gains[30.0] < gains[1e3]


def test_a_singular_block_stays_as_it_is():
    w_KB, kept_KB = torch.ones(1, 4, dtype=torch.float64), torch.tensor([[True, True, False, False]])
    fisher_KBB = torch.ones(1, 4, 4, dtype=torch.float64)
    active_KB = torch.ones_like(kept_KB)
    assert torch.equal(swapped(w_KB, fisher_KBB, active_KB, kept_KB, group=4), kept_KB)
