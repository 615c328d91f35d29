"""Elimination compiled for the CPU.

The elimination order makes a pivoted Cholesky factor of F^-1: after k turns the inverse of what remains is
``A = F^-1 - V^T V`` with one row of V a turn. So the inverse is never rewritten. A turn reads the one row of F^-1
that it needs, subtracts the k rows of V from it (the whole cost: B^3/6 multiply-adds a block, half of rewriting a
shrinking A), and keeps only the diagonal of A up to date, because that is all the choice of a pivot looks at. V is
at most 4 B^2 bytes (147 KB at B = 192) and stays in the level-2 cache.

The last of the weights that remain takes the place of the one that leaves, which keeps the inner loops contiguous.
They run over whole vectors: V and the row have ``COLUMNS`` to spare, and what is computed there is not read.

Shape suffixes: K Fisher blocks, B weights in a block, N weights of it that remain, T turns.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ovit_deploy.kernels.compiled import Array, compiled
from ovit_deploy.kernels.eliminate import CANCELLED, Elimination
from ovit_deploy.kernels.vectors import LANES, fma, load, spread, store

COLUMNS = 16  # a power of two
BLOCKS_A_TASK = 8


def eliminate(
    w_KB: Tensor, finv_KBB: Tensor, active_KB: Tensor, counts_K: Tensor, group: int = 1, limit: int = 1
) -> Elimination:
    """See :func:`ovit_deploy.kernels.eliminate.eliminate`; works in the dtype of ``finv_KBB``, on torch's threads."""
    return in_threads(partial(eliminate_blocks, group, limit), w_KB, finv_KBB, active_KB, counts_K, w_KB.shape[1])


def in_threads(
    function: Callable[..., None], w_KB: Tensor, finv_KBB: Tensor, active_KB: Tensor, counts_K: Tensor, num_ranks: int
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
        function(*(array[part] for array in inputs), *(array[part] for array in outputs))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(run, range(0, len(w_KB), BLOCKS_A_TASK)))
    return Elimination(rank_KR.to(device), marginal_KR.to(device, w_KB.dtype), weights_KB.to(device, w_KB.dtype))


@compiled
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
    space, finv_BB = workspace(counts_K.max(), w_KB.shape[1], finv_KBB.dtype), np.empty_like(finv_KBB[0])
    for b in range(len(w_KB)):
        outputs = rank_KB[b], marginal_KB[b], weights_KB[b]
        finv_BB[:] = finv_KBB[b]  # into the cache, in order; its rows are then read in any
        eliminate_block(w_KB[b], finv_BB, active_KB[b], counts_K[b], group, limit, space, *outputs)


@compiled
def eliminate_block(
    w_B: Array,
    finv_BB: Array,
    active_B: Array,
    count: int,
    group: int,
    limit: int,
    space: tuple[Array, Array, Array],
    rank_B: Array,
    marginal_B: Array,
    weights_B: Array,
) -> None:
    """Remove ``count`` weights of one block."""
    index_N = np.flatnonzero(active_B).astype(np.int32)
    num_left = len(index_N)
    factor_TN, row_N, pivot_T = space
    u_N = w_B[index_N]
    diag_N = np.diag(finv_BB)[index_N]
    floor_N = diag_N * (CANCELLED * np.finfo(finv_BB.dtype).eps)
    score_N = u_N * u_N / diag_N
    gone_G = num_inactive(active_B, group)
    open_B = np.repeat(gone_G < limit, group)
    pass_over(open_B, index_N, num_left, score_N)
    for turn in range(count):
        p = first_smallest(score_N, index_N, num_left)
        leaves = index_N[p]
        rank_B[leaves] = turn + 1
        marginal_B[leaves] = score_N[p] / 2
        gather_row(finv_BB[leaves], index_N, num_left, row_N)
        subtract_factors(factor_TN, turn, p, num_left, row_N, pivot_T)
        take_out(p, num_left, row_N, u_N, diag_N, floor_N, score_N, factor_TN[turn])
        num_left -= 1
        move(num_left, p, turn + 1, index_N, u_N, diag_N, floor_N, score_N, factor_TN)
        if group > 1:
            close_full_group(leaves, group, limit, gone_G, open_B)
            pass_over(open_B, index_N, num_left, score_N)
    for i in range(num_left):
        weights_B[index_N[i]] = u_N[i]


@compiled
def workspace(num_turns: int, num_weights: int, dtype: np.dtype) -> tuple[Array, Array, Array]:
    """V, a row and the coefficients of a turn. Rows of V are an odd number of vectors: columns spread in the cache."""
    columns = whole(num_weights, COLUMNS) | COLUMNS
    return np.zeros((num_turns, columns), dtype), np.zeros(columns, dtype), np.zeros(num_turns, dtype)


@compiled
def whole(count: int, size: int) -> int:
    """``count``, rounded up to a multiple of ``size``."""
    return (count + size - 1) // size * size


@compiled
def num_inactive(active_B: Array, group: int) -> Array:
    """How many weights of each group are pruned already."""
    gone_G = np.zeros(len(active_B) // group, np.int64)
    for i in range(len(active_B)):
        gone_G[i // group] += not active_B[i]
    return gone_G


@compiled
def close_full_group(index: int, group: int, limit: int, gone_G: Array, open_B: Array) -> None:
    """Count a weight that has left; the last of its group's limit closes the group."""
    q = index // group
    gone_G[q] += 1
    if gone_G[q] >= limit:
        open_B[q * group : (q + 1) * group] = False


@compiled
def pass_over(open_B: Array, index_N: Array, num_left: int, score_N: Array) -> None:
    """Weights of closed groups are never chosen, and compensate as the others do."""
    for i in range(num_left):
        if not open_B[index_N[i]]:
            score_N[i] = np.inf


@compiled
def first_smallest(score_N: Array, index_N: Array, num_left: int) -> int:
    """Where the smallest score is; of equal ones, that of the weight that comes first."""
    p, best = 0, score_N[0]
    for i in range(1, num_left):
        score = score_N[i]
        if score < best:
            p, best = i, score
        elif score == best and index_N[i] < index_N[p]:
            p = i
    return p


@compiled
def gather_row(finv_B: Array, index_N: Array, num_left: int, row_N: Array) -> None:
    """The entries of one row of F^-1 that belong to the weights that remain."""
    for j in range(num_left):
        row_N[j] = finv_B[index_N[j]]


@compiled
def subtract_factors(factor_TN: Array, turn: int, p: int, num_left: int, row_N: Array, pivot_T: Array) -> None:
    """``row -= V[:turn, p] @ V[:turn]``: makes a row of F^-1 the row of the present A."""
    stride = factor_TN.shape[1]
    factor = factor_TN.reshape(-1)
    for t in range(turn):
        pivot_T[t] = -factor_TN[t, p]
    wide = num_left // (4 * LANES) * 4 * LANES
    for j in range(0, wide, 4 * LANES):
        j1, j2, j3 = j + LANES, j + 2 * LANES, j + 3 * LANES
        r0, r1, r2, r3 = load(row_N, j), load(row_N, j1), load(row_N, j2), load(row_N, j3)
        for t in range(turn):
            at, c = t * stride, spread(pivot_T, t)
            r0, r1 = fma(c, load(factor, at + j), r0), fma(c, load(factor, at + j1), r1)
            r2, r3 = fma(c, load(factor, at + j2), r2), fma(c, load(factor, at + j3), r3)
        store(r0, row_N, j), store(r1, row_N, j1), store(r2, row_N, j2), store(r3, row_N, j3)
    for j in range(wide, num_left, LANES):
        r = load(row_N, j)
        for t in range(turn):
            r = fma(spread(pivot_T, t), load(factor, t * stride + j), r)
        store(r, row_N, j)


@compiled
def take_out(
    p: int, num_left: int, row_N: Array, u_N: Array, diag_N: Array, floor_N: Array, score_N: Array, factor_N: Array
) -> None:
    """Weight p leaves: the others compensate, and the row of V that this turn adds is written to ``factor_N``."""
    scale = 1 / np.sqrt(diag_N[p]) if diag_N[p] > floor_N[p] else 0 * floor_N[p]
    step = u_N[p] * scale
    for j in range(num_left):
        v = row_N[j] * scale
        u = u_N[j] - v * step
        diag = diag_N[j] - v * v
        diag = diag if diag > floor_N[j] else floor_N[j]
        factor_N[j], u_N[j], diag_N[j], score_N[j] = v, u, diag, u * u / diag


@compiled
def move(
    last: int,
    p: int,
    num_gone: int,
    index_N: Array,
    u_N: Array,
    diag_N: Array,
    floor_N: Array,
    score_N: Array,
    factor_TN: Array,
) -> None:
    """The last of the weights takes place p."""
    index_N[p], u_N[p], diag_N[p] = index_N[last], u_N[last], diag_N[last]
    floor_N[p], score_N[p] = floor_N[last], score_N[last]
    for t in range(num_gone):
        factor_TN[t, p] = factor_TN[t, last]
