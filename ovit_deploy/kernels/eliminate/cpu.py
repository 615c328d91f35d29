"""Elimination compiled for the CPU.

The elimination order makes a pivoted Cholesky factor of F^-1: after k turns the inverse of what remains is
``A = F^-1 - V^T V`` with one row of V a turn. So the inverse is never rewritten. A turn reads the one row of F^-1
that it needs, subtracts the k rows of V from it (the whole cost: B^3/6 multiply-adds a block, half of rewriting a
shrinking A), and keeps only the diagonal of A up to date, because that is all the choice of a pivot looks at. V is
at most 4 B^2 bytes (147 KB at B = 192) and stays in the level-2 cache.

Columns of V that have left are squeezed out every ``SQUEEZE`` turns, which keeps the inner loops contiguous.

Shape suffixes: K Fisher blocks, B weights in a block, N weights of it that remain, T turns.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ovit_deploy.kernels.eliminate import CANCELLED, Elimination

Array = np.ndarray

SQUEEZE = 16
BLOCKS_A_TASK = 4


def eliminate(
    w_KB: Tensor, finv_KBB: Tensor, active_KB: Tensor, counts_K: Tensor, group: int = 1, limit: int = 1
) -> Elimination:
    """See :func:`ovit_deploy.kernels.eliminate.eliminate`; works in the dtype of ``finv_KBB``, on torch's threads."""
    return in_threads(partial(eliminate_blocks, group, limit), w_KB, finv_KBB, active_KB, counts_K, w_KB.shape[1])


def in_threads(
    compiled: Callable[..., None], w_KB: Tensor, finv_KBB: Tensor, active_KB: Tensor, counts_K: Tensor, num_ranks: int
) -> Elimination:
    """Run a compiled function on a few blocks at a time; it fills ranks and marginals [K, num_ranks] and weights."""
    dtype, device = finv_KBB.dtype, w_KB.device
    rank_KR = torch.zeros(len(w_KB), num_ranks, dtype=torch.int32)
    marginal_KR = torch.zeros(len(w_KB), num_ranks, dtype=dtype)
    weights_KB = torch.zeros(w_KB.shape, dtype=dtype)
    tensors = (w_KB.to(dtype), finv_KBB, active_KB, counts_K.long())
    inputs = [tensor.detach().cpu().contiguous().numpy() for tensor in tensors]
    outputs = [tensor.numpy() for tensor in (rank_KR, marginal_KR, weights_KB)]

    def run(start: int) -> None:
        part = slice(start, start + BLOCKS_A_TASK)
        compiled(*(array[part] for array in inputs), *(array[part] for array in outputs))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(run, range(0, len(w_KB), BLOCKS_A_TASK)))
    return Elimination(rank_KR.to(device), marginal_KR.to(device, w_KB.dtype), weights_KB.to(device, w_KB.dtype))


@njit(cache=True, nogil=True, fastmath={"contract"})
def eliminate_blocks(
    group: int,
    limit: int,
    w_KB: Array,
    finv_KBB: Array,
    active_KB: Array,
    counts_K: Array,
    rank_KB: Array,
    marginal_KB: Array,
    weights_KB: Array,
) -> None:
    """Eliminate in each block, into ``rank_KB``, ``marginal_KB`` and ``weights_KB``."""
    for b in range(len(w_KB)):
        outputs = rank_KB[b], marginal_KB[b], weights_KB[b]
        eliminate_block(w_KB[b], finv_KBB[b], active_KB[b], counts_K[b], group, limit, *outputs)


@njit(cache=True, nogil=True, fastmath={"contract"})
def eliminate_block(
    w_B: Array,
    finv_BB: Array,
    active_B: Array,
    count: int,
    group: int,
    limit: int,
    rank_B: Array,
    marginal_B: Array,
    weights_B: Array,
) -> None:
    """Remove ``count`` weights of one block; a weight that has left carries ``u = inf``, so that it is never chosen."""
    index_N = np.flatnonzero(active_B)
    num_left = len(index_N)
    row_N = np.empty(num_left, finv_BB.dtype)
    u_N = w_B[index_N]
    diag_N = np.diag(finv_BB)[index_N]
    floor_N = diag_N * (CANCELLED * np.finfo(finv_BB.dtype).eps)
    score_N = u_N * u_N / diag_N
    factor_TN = np.empty((count, num_left), finv_BB.dtype)
    gone_G = num_inactive(active_B, group)
    open_B = np.repeat(gone_G < limit, group)
    pass_over(open_B, index_N, num_left, score_N)
    for turn in range(count):
        if turn % SQUEEZE == 0:
            num_left = squeeze(num_left, turn, index_N, u_N, diag_N, floor_N, score_N, factor_TN)
        p = first_smallest(score_N, num_left)
        rank_B[index_N[p]] = turn + 1
        marginal_B[index_N[p]] = score_N[p] / 2
        gather_row(finv_BB[index_N[p]], index_N, num_left, row_N)
        subtract_factors(factor_TN, turn, p, num_left, row_N)
        take_out(p, num_left, row_N, u_N, diag_N, floor_N, score_N, factor_TN[turn])
        if group > 1:
            close_full_group(index_N[p], group, limit, gone_G, open_B)
            pass_over(open_B, index_N, num_left, score_N)
    for i in range(num_left):
        if u_N[i] != np.inf:
            weights_B[index_N[i]] = u_N[i]


@njit(cache=True, nogil=True)
def num_inactive(active_B: Array, group: int) -> Array:
    """How many weights of each group are pruned already."""
    gone_G = np.zeros(len(active_B) // group, np.int64)
    for i in range(len(active_B)):
        gone_G[i // group] += not active_B[i]
    return gone_G


@njit(cache=True, nogil=True)
def close_full_group(index: int, group: int, limit: int, gone_G: Array, open_B: Array) -> None:
    """Count a weight that has left; the last of its group's limit closes the group."""
    q = index // group
    gone_G[q] += 1
    if gone_G[q] >= limit:
        open_B[q * group : (q + 1) * group] = False


@njit(cache=True, nogil=True)
def pass_over(open_B: Array, index_N: Array, num_left: int, score_N: Array) -> None:
    """Weights of closed groups are never chosen, and compensate as the others do."""
    for i in range(num_left):
        if not open_B[index_N[i]]:
            score_N[i] = np.inf


@njit(cache=True, nogil=True, fastmath={"contract"})
def first_smallest(score_N: Array, num_left: int) -> int:
    """Index of the smallest score, the first of equals."""
    p, best = 0, score_N[0]
    for i in range(1, num_left):
        if score_N[i] < best:
            p, best = i, score_N[i]
    return p


@njit(cache=True, nogil=True, fastmath={"contract"})
def gather_row(finv_B: Array, index_N: Array, num_left: int, row_N: Array) -> None:
    """The entries of one row of F^-1 that belong to the weights that remain."""
    for j in range(num_left):
        row_N[j] = finv_B[index_N[j]]


@njit(cache=True, nogil=True, fastmath={"contract"})
def subtract_factors(factor_TN: Array, turn: int, p: int, num_left: int, row_N: Array) -> None:
    """``row -= V[:turn, p] @ V[:turn]``: makes a row of F^-1 the row of the present A. Eight rows of V a sweep."""
    start = 0
    while start + 8 <= turn:
        v0_N, v1_N, v2_N, v3_N = factor_TN[start], factor_TN[start + 1], factor_TN[start + 2], factor_TN[start + 3]
        v4_N, v5_N, v6_N, v7_N = (
            factor_TN[start + 4],
            factor_TN[start + 5],
            factor_TN[start + 6],
            factor_TN[start + 7],
        )
        c0, c1, c2, c3, c4, c5, c6, c7 = v0_N[p], v1_N[p], v2_N[p], v3_N[p], v4_N[p], v5_N[p], v6_N[p], v7_N[p]
        for j in range(num_left):
            first = c0 * v0_N[j] + c1 * v1_N[j] + c2 * v2_N[j] + c3 * v3_N[j]
            row_N[j] -= first + (c4 * v4_N[j] + c5 * v5_N[j] + c6 * v6_N[j] + c7 * v7_N[j])
        start += 8
    for t in range(start, turn):
        v_N = factor_TN[t]
        c = v_N[p]
        for j in range(num_left):
            row_N[j] -= c * v_N[j]


@njit(cache=True, nogil=True, fastmath={"contract"})
def take_out(
    p: int, num_left: int, row_N: Array, u_N: Array, diag_N: Array, floor_N: Array, score_N: Array, factor_N: Array
) -> None:
    """Weight p leaves: the others compensate, and the row of V that this turn adds is written to ``factor_N``."""
    scale = 1 / np.sqrt(diag_N[p]) if diag_N[p] > floor_N[p] else 0 * floor_N[p]
    step = u_N[p] * scale
    for j in range(num_left):
        factor_N[j] = row_N[j] * scale
        u_N[j] -= factor_N[j] * step
        diag_N[j] = max(diag_N[j] - factor_N[j] * factor_N[j], floor_N[j])
        score_N[j] = u_N[j] * u_N[j] / diag_N[j]
    u_N[p] = np.inf
    score_N[p] = np.inf


@njit(cache=True, nogil=True, fastmath={"contract"})
def squeeze(
    num_left: int,
    turn: int,
    index_N: Array,
    u_N: Array,
    diag_N: Array,
    floor_N: Array,
    score_N: Array,
    factor_TN: Array,
) -> int:
    """Close the gaps of weights that have left; returns how many remain."""
    kept_N = np.flatnonzero(u_N[:num_left] != np.inf)
    for to in range(len(kept_N)):
        at = kept_N[to]
        index_N[to] = index_N[at]
        u_N[to] = u_N[at]
        diag_N[to] = diag_N[at]
        floor_N[to] = floor_N[at]
        score_N[to] = score_N[at]
    for t in range(turn):
        for to in range(len(kept_N)):
            factor_TN[t, to] = factor_TN[t, kept_N[to]]
    return len(kept_N)
