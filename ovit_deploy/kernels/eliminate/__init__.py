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

Where A_pp has fallen to ``CANCELLED`` machine epsilons of where it started, A[:, p] is rounding noise: such a weight
counts with that A_pp and leaves without touching the others. It takes a condition near 1 / epsilon to get there.

Shape suffixes: K Fisher blocks, B weights in a block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, get_args

from torch import Tensor

Backend = Literal["cpu", "reference"]

CANCELLED = 16


@dataclass(frozen=True)
class Elimination:
    """What elimination found in each block.

    Args:
        rank_KB: int32, the turn (from 1) at which a weight went; 0 where it was not active or was not removed.
        marginal_KB: Loss of removing the weight at its turn; 0 where ``rank_KB`` is 0.
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
    backend: Backend = "cpu",
) -> Elimination:
    """Remove weights of every block greedily, ``counts_K`` of them or all.

    Args:
        w_KB: Weights, float32 or float64.
        finv_KBB: Inverse Fisher over the active weights. Rows and columns of inactive weights are not read.
        active_KB: bool, False where a weight is pruned already: it is left out and stays zero.
        counts_K: How many weights to remove from each block; None removes all.
        backend: ``cpu`` (compiled, works in the dtype it is given) or ``reference`` (batched torch in float64).

    Returns:
        Ranks, marginals and the remaining weights. The inputs are not modified.
    """
    assert backend in get_args(Backend), f"unknown backend {backend!r}"
    assert finv_KBB.shape == (*w_KB.shape, w_KB.shape[1]) and active_KB.shape == w_KB.shape
    available_K = active_KB.sum(dim=1)
    counts_K = available_K if counts_K is None else counts_K.to(available_K)
    assert bool(((counts_K >= 0) & (counts_K <= available_K)).all()), "more removals than active weights"
    run: Callable[..., Elimination] = import_module(f"{__name__}.{backend}").eliminate
    return run(w_KB, finv_KBB, active_KB.bool(), counts_K)
