"""Exact single swaps of a pruned for a kept weight, compiled for the CPU.

With P kept, S pruned and ``u`` the best values of P, one table of a block holds all that a swap looks at: the principal
pivot transform of F on P (Tsatsomeros, Linear Algebra Appl. 307, 2000), with one more column for the constants::

    rows P   A = F_PP^-1    V = -A F_PS             u_P
    rows S                  C = F_SS + F_SP V       r = (F (u - w))_S

Reviving j takes its weight to ``t = -r_j / C_jj`` and lowers the loss by ``r_j^2 / (2 C_jj)``; pruning i after that is
an OBS step. The loss changes by exactly::

    D_ij = -r_j^2 / (2 C_jj) + (u_i + t V_ij)^2 / (2 (A_ii + V_ij^2 / C_jj))

and the table of the swapped block is two exchanges of B^2 multiply-adds away.

Shape suffixes: K Fisher blocks, B weights in a block, N active weights of it, Z = N + 1.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ovit_deploy.kernels.eliminate import CANCELLED

Array = np.ndarray

# A gain below this part of the loss of removing the whole block is rounding noise.
LEAST_GAIN = 1e-10


def swapped(w_KB: Tensor, fisher_KBB: Tensor, active_KB: Tensor, kept_KB: Tensor, *, group: int) -> Tensor:
    """Kept weights [K, B] of each block after the best swap, again and again, until none lowers the loss.

    A block whose F is singular to working precision over the kept weights stays as it is.

    Args:
        w_KB: Weights.
        fisher_KBB: Fisher blocks; rows and columns of inactive weights are not read.
        active_KB: bool, False where a weight was pruned before: it is not revived.
        kept_KB: bool, where to start; as many are kept at the end.
        group: A weight is swapped only for one of its own ``group`` consecutive weights.
    """
    result_KB = kept_KB.detach().cpu().clone(memory_format=torch.contiguous_format)
    tensors = (w_KB.double(), fisher_KBB.double(), active_KB)
    w, fisher, active = (tensor.detach().cpu().contiguous().numpy() for tensor in tensors)
    swap_blocks(w, fisher, active, group, result_KB.numpy())
    return result_KB.to(kept_KB.device)


@njit(cache=True, nogil=True, fastmath={"contract"})
def swap_blocks(w_KB: Array, fisher_KBB: Array, active_KB: Array, group: int, kept_KB: Array) -> None:
    """Swap in each block, in place in ``kept_KB``."""
    for b in range(len(w_KB)):
        index_N = np.flatnonzero(active_KB[b])
        table_NZ = start(w_KB[b][index_N], fisher_KBB[b], index_N)
        floor_N = np.diag(fisher_KBB[b])[index_N] * (CANCELLED * np.finfo(np.float64).eps)
        kept_N = kept_KB[b][index_N]
        least = LEAST_GAIN * whole_loss(w_KB[b][index_N], table_NZ)
        if 0 < kept_N.sum() < len(kept_N) and bring_in(table_NZ, kept_N, floor_N):
            swap_block(table_NZ, index_N // group, floor_N, least, kept_N)
        kept_KB[b][index_N] = kept_N


@njit(cache=True, nogil=True, fastmath={"contract"})
def start(w_N: Array, fisher_BB: Array, index_N: Array) -> Array:
    """The table with nothing kept: F, and ``-F w``."""
    size = len(index_N)
    table_NZ = np.zeros((size, size + 1))
    for i in range(size):
        for j in range(size):
            table_NZ[i, j] = fisher_BB[index_N[i], index_N[j]]
            table_NZ[i, size] -= table_NZ[i, j] * w_N[j]
    return table_NZ


@njit(cache=True, nogil=True, fastmath={"contract"})
def whole_loss(w_N: Array, table_NZ: Array) -> float:
    """``1/2 w^T F w``."""
    loss = 0.0
    for i in range(len(w_N)):
        loss -= w_N[i] * table_NZ[i, len(w_N)] / 2
    return loss


@njit(cache=True, nogil=True, fastmath={"contract"})
def bring_in(table_NZ: Array, kept_N: Array, floor_N: Array) -> bool:
    """Exchange on every kept weight; False where F is singular."""
    for k in range(len(kept_N)):
        if kept_N[k]:
            if not table_NZ[k, k] > floor_N[k]:
                return False
            exchange(table_NZ, k)
    return True


@njit(cache=True, nogil=True, fastmath={"contract"})
def swap_block(table_NZ: Array, group_N: Array, floor_N: Array, least: float, kept_N: Array) -> None:
    """The best swap again and again, at most as often as there are weights."""
    for _ in range(len(kept_N)):
        gain, i, j = best_swap(table_NZ, group_N, floor_N, kept_N)
        if not gain > least:
            return
        exchange(table_NZ, j)
        exchange(table_NZ, i)
        kept_N[j], kept_N[i] = True, False


@njit(cache=True, nogil=True, fastmath={"contract"})
def best_swap(table_NZ: Array, group_N: Array, floor_N: Array, kept_N: Array) -> tuple[float, int, int]:
    """The most that a swap lowers the loss, the kept weight that goes, and the pruned one that returns."""
    size = len(kept_N)
    best, best_i, best_j = 0.0, -1, -1
    for j in range(size):
        c, r = table_NZ[j, j], table_NZ[j, size]
        if kept_N[j] or not c > floor_N[j] or r * r <= 2 * c * best:
            continue
        for i in range(size):
            if kept_N[i] and group_N[i] == group_N[j]:
                v, u = table_NZ[i, j], table_NZ[i, size]
                moved = u - r / c * v
                gain = (r * r / c - moved * moved / (table_NZ[i, i] + v * v / c)) / 2
                if gain > best:
                    best, best_i, best_j = gain, i, j
    return best, best_i, best_j


@njit(cache=True, nogil=True, fastmath={"contract"})
def exchange(table_NZ: Array, k: int) -> None:
    """Weight k is kept from now on, or is no longer: the same step takes it in and out."""
    row_Z = table_NZ[k].copy()
    pivot = row_Z[k]
    for i in range(len(table_NZ)):
        part_Z = table_NZ[i]
        ratio = part_Z[k] / pivot
        for j in range(len(row_Z)):
            part_Z[j] -= ratio * row_Z[j]
        part_Z[k] = ratio
    table_NZ[k] = row_Z / -pivot
    table_NZ[k, k] = 1 / pivot
