import subprocess
import sys

import oracles
import pytest
import torch
from cases import fisher_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from ovit_deploy.kernels.eliminate import eliminate

BACKENDS = ["cpu", "reference"]


def everything(w_KB):
    return torch.ones_like(w_KB, dtype=torch.bool)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("block_size", [1, 7, 33])
def test_losses_of_a_prefix_add_up_to_the_joint_obs_loss(backend, block_size):
    w_KB, fisher_KBB = fisher_problem(3, block_size)
    found = eliminate(w_KB, fisher_KBB.inverse(), everything(w_KB), backend=backend)
    for b in range(3):
        for count in range(1, block_size + 1):
            gone = (found.rank_KB[b] <= count).nonzero().flatten().tolist()
            loss = found.marginal_KB[b][gone].sum()
            torch.testing.assert_close(float(loss), oracles.joint_loss(w_KB[b], fisher_KBB[b], gone))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [0, 1, 5, 20, 21])
def test_the_rest_of_a_block_takes_its_best_values(backend, count):
    w_KB, fisher_KBB = fisher_problem(4, 21)
    counts_K = torch.full((4,), count)
    found = eliminate(w_KB, fisher_KBB.inverse(), everything(w_KB), counts_K, backend=backend)
    for b in range(4):
        gone = (found.rank_KB[b] > 0).nonzero().flatten().tolist()
        assert len(gone) == count
        assert (found.weights_KB[b][gone] == 0).all()
        torch.testing.assert_close(found.weights_KB[b], oracles.best_rest(w_KB[b], fisher_KBB[b], gone))


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_step_takes_the_cheapest_weight(backend):
    w_KB, fisher_KBB = fisher_problem(1, 12)
    found = eliminate(w_KB, fisher_KBB.inverse(), everything(w_KB), backend=backend)
    order = found.rank_KB[0].argsort().tolist()
    for k in range(12):
        losses = {p: oracles.joint_loss(w_KB[0], fisher_KBB[0], [*order[:k], p]) for p in order[k:]}
        assert min(losses, key=lambda p: losses[p]) == order[k]


@settings(max_examples=25, deadline=None)
@given(size=st.integers(2, 9), seed=st.integers(0, 10_000), condition=st.sampled_from([1.0, 30.0, 1e3]))
def test_greedy_is_never_below_the_brute_force_optimum(size, seed, condition):
    w_KB, fisher_KBB = fisher_problem(1, size, seed, condition)
    found = eliminate(w_KB, fisher_KBB.inverse(), everything(w_KB))
    loss_B = found.marginal_KB[0][found.rank_KB[0].argsort()].cumsum(0)
    for count in (1, size // 2, size):
        optimum = oracles.optimal_loss(w_KB[0], fisher_KBB[0], count)
        assert loss_B[count - 1] >= optimum * (1 - 1e-9)
    assert loss_B[0] == pytest.approx(oracles.optimal_loss(w_KB[0], fisher_KBB[0], 1))
    assert loss_B[-1] == pytest.approx(float(w_KB[0] @ fisher_KBB[0] @ w_KB[0]) / 2)


@settings(max_examples=20, deadline=None)
@given(num_blocks=st.integers(1, 70), size=st.integers(1, 50), seed=st.integers(0, 10_000), kept=st.floats(0.0, 1.0))
def test_the_compiled_kernel_is_the_reference(num_blocks, size, seed, kept):
    w_KB, fisher_KBB = fisher_problem(num_blocks, size, seed)
    draw = torch.Generator().manual_seed(seed)
    active_KB = torch.rand(num_blocks, size, generator=draw) < kept
    counts_K = (active_KB.sum(1) * torch.rand(num_blocks, generator=draw)).round().long()
    fast = eliminate(w_KB, fisher_KBB.inverse(), active_KB, counts_K)
    slow = eliminate(w_KB, fisher_KBB.inverse(), active_KB, counts_K, backend="reference")
    assert torch.equal(fast.rank_KB, slow.rank_KB)
    torch.testing.assert_close(fast.marginal_KB, slow.marginal_KB)
    torch.testing.assert_close(fast.weights_KB, slow.weights_KB)


def test_float32_finds_the_losses_of_float64():
    w_KB, fisher_KBB = fisher_problem(8, 192, condition=1e3)
    finv_KBB = fisher_KBB.inverse()
    counts_K = torch.full((8,), 144)
    fast = eliminate(w_KB.float(), finv_KBB.float(), everything(w_KB), counts_K)
    slow = eliminate(w_KB, finv_KBB, everything(w_KB), counts_K, backend="reference")
    assert fast.weights_KB.dtype == fast.marginal_KB.dtype == torch.float32
    torch.testing.assert_close(fast.marginal_KB.sum(1).double(), slow.marginal_KB.sum(1), rtol=1e-3, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inactive_weights_stay_out_whatever_stands_in_their_rows(backend):
    w_KB, fisher_KBB = fisher_problem(2, 10)
    active_KB = torch.tensor([[True, False] * 5, [False] * 3 + [True] * 7])
    full_KBB = torch.full_like(fisher_KBB, 1e6)
    for b in range(2):
        at = active_KB[b].nonzero().flatten()
        full_KBB[b][at[:, None], at] = fisher_KBB[b][at[:, None], at].inverse()
    found = eliminate(w_KB, full_KBB, active_KB, active_KB.sum(1) // 2, backend=backend)
    for b in range(2):
        at = active_KB[b].nonzero().flatten()
        small = eliminate(
            w_KB[b][None, at],
            fisher_KBB[b][at[:, None], at].inverse()[None],
            everything(at[None]),
            (len(at) // 2) * torch.ones(1),
        )
        assert torch.equal(found.rank_KB[b][at], small.rank_KB[0])
        torch.testing.assert_close(found.weights_KB[b][at], small.weights_KB[0])
    assert (found.rank_KB[~active_KB] == 0).all()
    assert (found.weights_KB[~active_KB] == 0).all()
    assert (found.marginal_KB[~active_KB] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_are_zero_already_go_first_and_cost_nothing(backend):
    w_KB, fisher_KBB = fisher_problem(2, 20)
    w_KB[:, 3::4] = 0
    found = eliminate(w_KB, fisher_KBB.inverse(), everything(w_KB), backend=backend)
    assert torch.equal(found.rank_KB[:, 3::4], torch.arange(1, 6, dtype=torch.int32).expand(2, 5))
    assert (found.marginal_KB[:, 3::4] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_are_not_modified(backend):
    w_KB, fisher_KBB = fisher_problem(2, 9)
    inputs = (w_KB, fisher_KBB.inverse(), everything(w_KB), torch.tensor([4, 5]))
    copies = [tensor.clone() for tensor in inputs]
    eliminate(*inputs, backend=backend)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, copies, strict=True))


@pytest.mark.parametrize("condition", [1e6, 1e9, 1e12])
def test_a_nearly_singular_inverse_gives_finite_losses_in_float32(condition):
    w_KB, fisher_KBB = fisher_problem(4, 64, condition=condition)
    found = eliminate(w_KB.float(), fisher_KBB.inverse().float(), everything(w_KB))
    assert found.marginal_KB.isfinite().all()
    assert torch.equal(found.rank_KB.sort(dim=1).values, torch.arange(1, 65, dtype=torch.int32).expand(4, 64))


def test_no_blocks_give_no_results():
    found = eliminate(torch.zeros(0, 4), torch.zeros(0, 4, 4), torch.zeros(0, 4, dtype=torch.bool))
    assert found.rank_KB.shape == (0, 4)


def test_importing_the_package_does_not_import_numba():
    check = "import sys, ovit_deploy.pruning, ovit_deploy.kernels.eliminate; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
