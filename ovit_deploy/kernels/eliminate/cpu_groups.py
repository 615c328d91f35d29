"""Elimination of whole groups, compiled for the CPU.

The weights of the cheapest group leave one after the other, each as in cpu.py: the same factor V of F^-1, a row a
weight. What is kept up to date of A is more than its diagonal: the S by S block of every group, whose Cholesky factor
gives the group's joint loss.

Groups that have left are squeezed out of V every ``SQUEEZE`` turns.

Shape suffixes: K Fisher blocks, B weights in a block, G groups of S weights, N weights that remain and P groups of
them, T weights that have left.
"""

from functools import partial

import numpy as np
from torch import Tensor

from ovit_deploy.kernels.compiled import Array, compiled
from ovit_deploy.kernels.eliminate import CANCELLED, Elimination
from ovit_deploy.kernels.eliminate.cpu import (
    first_smallest,
    gather_row,
    in_threads,
    subtract_factors,
    workspace,
)

SQUEEZE = 4


def eliminate_groups(w_KB: Tensor, finv_KBB: Tensor, active_KB: Tensor, counts_K: Tensor, group: int) -> Elimination:
    """See :func:`ovit_deploy.kernels.eliminate.eliminate_groups`; works in the dtype of ``finv_KBB``."""
    num_groups = w_KB.shape[1] // group
    return in_threads(partial(eliminate_blocks, group), w_KB, finv_KBB, active_KB, counts_K, num_groups)


@compiled
def eliminate_blocks(
    group: int,
    w_KB: Array,
    finv_KBB: Array,
    active_KB: Array,
    counts_K: Array,
    rank_KG: Array,
    marginal_KG: Array,
    weights_KB: Array,
) -> None:
    """Eliminate in each block, into ``rank_KG``, ``marginal_KG`` and ``weights_KB``."""
    for b in range(len(w_KB)):
        outputs = rank_KG[b], marginal_KG[b], weights_KB[b]
        eliminate_block(w_KB[b], finv_KBB[b], active_KB[b], counts_K[b], group, *outputs)


@compiled
def eliminate_block(
    w_B: Array,
    finv_BB: Array,
    active_B: Array,
    count: int,
    group: int,
    rank_G: Array,
    marginal_G: Array,
    weights_B: Array,
) -> None:
    """Remove ``count`` groups of one block; a group that has left has an infinite score."""
    index_N = np.flatnonzero(active_B)
    num_left = len(index_N)
    u_N = w_B[index_N]
    factor_TN, row_N, pivot_T = workspace(count * group, num_left, finv_BB.dtype)
    own_NS = own_blocks(finv_BB, index_N, group)
    floor_N = np.diag(finv_BB)[index_N] * (CANCELLED * np.finfo(finv_BB.dtype).eps)
    score_P = np.zeros(num_left // group, finv_BB.dtype)
    rescore(num_left, group, u_N, own_NS, floor_N, score_P)
    for turn in range(count):
        if turn % SQUEEZE == 0:
            num_left = squeeze(num_left, turn * group, group, index_N, u_N, own_NS, floor_N, score_P, factor_TN)
        p = first_smallest(score_P, index_N[::group], num_left // group)
        rank_G[index_N[p * group] // group] = turn + 1
        marginal_G[index_N[p * group] // group] = score_P[p]
        for member in range(group):
            i, t = p * group + member, turn * group + member
            gather_row(finv_BB[index_N[i]], index_N, num_left, row_N)
            subtract_factors(factor_TN, t, i, num_left, row_N, pivot_T)
            take_out(i, member, num_left, group, row_N, u_N, own_NS, floor_N, factor_TN[t])
        score_P[p] = np.inf
        rescore(num_left, group, u_N, own_NS, floor_N, score_P)
    for i in range(num_left):
        if score_P[i // group] != np.inf:
            weights_B[index_N[i]] = u_N[i]


@compiled
def own_blocks(finv_BB: Array, index_N: Array, group: int) -> Array:
    """Row i: what weight i and the weights of its group have in common in A."""
    own_NS = np.empty((len(index_N), group), finv_BB.dtype)
    for i in range(len(index_N)):
        first = i - i % group
        for s in range(group):
            own_NS[i, s] = finv_BB[index_N[i], index_N[first + s]]
    return own_NS


@compiled
def take_out(
    i: int,
    member: int,
    num_left: int,
    group: int,
    row_N: Array,
    u_N: Array,
    own_NS: Array,
    floor_N: Array,
    factor_N: Array,
) -> None:
    """Weight i leaves: the others compensate, and the row of V that it adds is written to ``factor_N``."""
    pivot = own_NS[i, member]
    scale = 1 / np.sqrt(pivot) if pivot > floor_N[i] else 0 * pivot
    step = u_N[i] * scale
    for j in range(num_left):
        factor_N[j] = row_N[j] * scale
        u_N[j] -= factor_N[j] * step
    for j in range(num_left):
        first = j - j % group
        for s in range(group):
            own_NS[j, s] -= factor_N[j] * factor_N[first + s]
    u_N[i] = 0


@compiled
def rescore(num_left: int, group: int, u_N: Array, own_NS: Array, floor_N: Array, score_P: Array) -> None:
    """Joint losses of the groups that remain."""
    for p in range(num_left // group):
        if score_P[p] != np.inf:
            part = slice(p * group, (p + 1) * group)
            score_P[p] = joint_loss(u_N[part].copy(), own_NS[part].copy(), floor_N[part])


@compiled
def joint_loss(u_S: Array, own_SS: Array, floor_S: Array) -> float:
    """``1/2 u^T A^-1 u`` of one group: its weights leave one after the other. Overwrites ``u_S`` and ``own_SS``."""
    size, loss = len(u_S), 0 * floor_S[0]
    for s in range(size):
        pivot = own_SS[s, s]
        loss += u_S[s] * u_S[s] / (2 * max(pivot, floor_S[s]))
        if pivot <= floor_S[s]:
            continue
        for r in range(s + 1, size):
            ratio = own_SS[r, s] / pivot
            u_S[r] -= ratio * u_S[s]
            for c in range(s + 1, size):
                own_SS[r, c] -= ratio * own_SS[s, c]
    return loss


@compiled
def squeeze(
    num_left: int,
    num_gone: int,
    group: int,
    index_N: Array,
    u_N: Array,
    own_NS: Array,
    floor_N: Array,
    score_P: Array,
    factor_TN: Array,
) -> int:
    """Close the gaps of groups that have left; returns how many weights remain."""
    kept_N = np.flatnonzero(np.repeat(score_P[: num_left // group] != np.inf, group))
    for to in range(len(kept_N)):
        at = kept_N[to]
        index_N[to] = index_N[at]
        u_N[to] = u_N[at]
        floor_N[to] = floor_N[at]
        own_NS[to] = own_NS[at]
        score_P[to // group] = score_P[at // group]
    for t in range(num_gone):
        for to in range(len(kept_N)):
            factor_TN[t, to] = factor_TN[t, kept_N[to]]
    return len(kept_N)
