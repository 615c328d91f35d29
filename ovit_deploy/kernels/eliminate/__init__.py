"""Greedy elimination inside Fisher blocks: the inner loop of every OBS-like pruner.

One weight at a time, in each block on its own: the weight whose removal costs least goes, the rest of its block
compensates (Optimal Brain Surgeon, Hassibi & Stork 1993; as used by oViT, arXiv 2210.09223, Algorithm 1)::

    u = w, A = F^-1
    for k = 1, 2, ...:
        p = argmin u_p^2 / A_pp               over the weights that remain
        rank[p] = k, marginal[p] = u_p^2 / (2 A_pp)
        u -= A[:, p] u_p / A_pp;  A -= A[:, p] A[p, :] / A_pp

The marginals of the first k steps add up to ``1/2 w_S^T (F^-1_SS)^-1 w_S``, the exact loss of removing those k weights
S together, so rank and marginal describe every sparsity of a block at once and no trace of weights need be kept.

In groups of consecutive weights a group that has lost ``limit`` weights is closed (N:M patterns), or a whole group q
goes in one turn (:func:`eliminate_groups`), at the joint loss ``1/2 u_q^T (A_qq)^-1 u_q``::

        u -= A[:, q] (A_qq)^-1 u_q;  A -= A[:, q] (A_qq)^-1 A[q, :]

Where A_pp has fallen to ``CANCELLED`` machine epsilons of where it started, A[:, p] is rounding noise: such a weight
counts with that A_pp and leaves without touching the others. It takes a condition near 1 / epsilon to get there.

Shape suffixes: K Fisher blocks, B weights in a block, G groups of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, get_args

import torch
from torch import Tensor

Backend = Literal["cpu", "gpu", "reference"]

CANCELLED = 16


@dataclass(frozen=True)
class Elimination:
    """What elimination found in each block.

    Args:
        rank_KB: int32, the turn (from 1) at which a weight went; 0 where it was not active or was not removed. Of
            groups that go whole, [K, G].
        marginal_KB: Loss of removing the weight at its turn; 0 where ``rank_KB`` is 0. Of groups that go whole, [K, G].
        weights_KB: The weights that remain, updated for what went; exact zeros elsewhere.
    """

    rank_KB: Tensor
    marginal_KB: Tensor
    weights_KB: Tensor


def eliminate(
    w_KB: Tensor,
    finv_KBB: Tensor,
    active_KB: Tensor,
    counts_K: Tensor | None = None,
    *,
    group: int = 1,
    limit: int = 1,
    backend: Backend | None = None,
) -> Elimination:
    """Remove weights of every block greedily, ``counts_K`` of them or all.

    With a ``limit`` below ``group`` no group of consecutive weights gets more than ``limit`` zeros: M - N of each M for
    an N:M pattern. Inactive weights count; a group that is closed still compensates.

    Args:
        w_KB: Weights, float32 or float64.
        finv_KBB: Inverse Fisher over the active weights. Rows and columns of inactive weights are not read.
        active_KB: bool, False where a weight is pruned already: it is left out and stays zero.
        counts_K: How many weights to remove from each block; None removes all that may go.
        group: Consecutive weights that share a limit.
        limit: The most zeros of a group.
        backend: ``cpu`` (compiled, works in the dtype it is given), ``gpu`` (Triton, likewise) or ``reference``
            (batched torch in float64); by default ``gpu`` for CUDA tensors and ``cpu`` for others.

    Returns:
        Ranks, marginals and the remaining weights. The inputs are not modified.
    """
    assert 1 <= limit <= group
    backend = backend or ("gpu" if finv_KBB.is_cuda else "cpu")
    gone_KG = (~active_KB.bool()).unflatten(1, (-1, group)).sum(dim=2)
    counts_K = checked_counts(w_KB, finv_KBB, active_KB, counts_K, (limit - gone_KG).clamp(min=0).sum(dim=1))
    return chosen(backend, "eliminate")(w_KB, finv_KBB, active_KB.bool(), counts_K, group, limit)


def eliminate_groups(
    w_KB: Tensor,
    finv_KBB: Tensor,
    active_KB: Tensor,
    counts_K: Tensor | None = None,
    *,
    group: int,
    backend: Backend = "cpu",
) -> Elimination:
    """Remove whole groups of consecutive weights of every block greedily, ``counts_K`` groups or all.

    Args:
        w_KB: See :func:`eliminate`, as for what is not told here.
        finv_KBB: Inverse Fisher over the active weights.
        active_KB: bool, the same for all weights of a group.
        counts_K: How many groups to remove from each block; None removes all.
        group: Consecutive weights that go together.
        backend: ``cpu``, also for CUDA tensors, which are copied there and back, or ``reference``.

    Returns:
        Ranks and marginals of groups [K, G], and the remaining weights.
    """
    active_KGS = active_KB.bool().unflatten(1, (-1, group))
    assert torch.equal(active_KGS.any(dim=2), active_KGS.all(dim=2)), "groups that are pruned in part"
    counts_K = checked_counts(w_KB, finv_KBB, active_KB, counts_K, active_KGS.all(dim=2).sum(dim=1))
    return chosen(backend, "eliminate_groups")(w_KB, finv_KBB, active_KB.bool(), counts_K, group)


def chosen(backend: str, function: str) -> Callable[..., Elimination]:
    """A backend's function; numba is imported only where it is used."""
    assert backend in get_args(Backend), f"unknown backend {backend!r}"
    module = "cpu_groups" if (backend, function) == ("cpu", "eliminate_groups") else backend
    return getattr(import_module(f"{__name__}.{module}"), function)


def checked_counts(
    w_KB: Tensor, finv_KBB: Tensor, active_KB: Tensor, counts_K: Tensor | None, available_K: Tensor
) -> Tensor:
    """The removals asked for, or all that are available."""
    assert finv_KBB.shape == (*w_KB.shape, w_KB.shape[1]) and active_KB.shape == w_KB.shape
    counts_K = available_K if counts_K is None else counts_K.to(available_K)
    assert bool(((counts_K >= 0) & (counts_K <= available_K)).all()), "more removals than may go"
    return counts_K
