"""Inverses of symmetric positive definite matrices of hundreds of rows, compiled for the CPU.

LAPACK is made for matrices of thousands of rows: at 192 it reaches a quarter of a core's speed. Here a matrix is held
by half (kernels/triangle) and swept in place, eight rows at a time: Gauss-Jordan elimination, which for these matrices
needs no pivoting (Higham, "Accuracy and Stability of Numerical Algorithms", section 14.4). Of A = -F, with the tile
A_ss on the diagonal, its row of tiles A_s and all others i and j, a sweep is::

    P = (-A_ss)^-1        A_ij += A_si^T P A_sj        A_sj = P A_sj        A_ss = P

After all T sweeps A has become F^-1. P is ``V V^T`` with V the inverse of a Cholesky factor of -A_ss; its pivots are
those of a Cholesky factor of F: where one is not positive, F is not positive definite.

Shape suffixes: K matrices, B rows and columns of each, H numbers that are held of it. Tiles, and panels of eight rows
as long as whole tiles make them (``width``), lie flat.
"""

import numpy as np
import torch
from torch import Tensor

from ovit_deploy.kernels.compiled import Array, compiled
from ovit_deploy.kernels.triangle import TILE, num_held
from ovit_deploy.kernels.triangle.cpu import add, fill, in_threads
from ovit_deploy.kernels.vectors import fma, load, multiply, plus, spread, store

# Larger ones leave the level-2 cache, and LAPACK takes all threads for one of them.
MOST_ROWS = 768


def inverses(matrix_KBB: Tensor) -> tuple[Tensor, Tensor]:
    """The inverses [K, B, B] in float64, and which matrices have none as they are not positive definite [K]."""
    matrix_KBB = matrix_KBB.contiguous()
    inverse_KBB = torch.empty_like(matrix_KBB, dtype=torch.float64)
    failed_K = torch.zeros(len(matrix_KBB), dtype=torch.bool)
    matrix, inverse, failed = matrix_KBB.numpy(), inverse_KBB.numpy(), failed_K.numpy()
    length = num_held(matrix.shape[1])
    in_threads(lambda part: invert_all(matrix[part], length, inverse[part], failed[part]), len(matrix))
    return inverse_KBB, failed_K


@compiled
def invert_all(matrix_KBB: Array, length: int, inverse_KBB: Array, failed_K: Array) -> None:
    """Invert every matrix."""
    width = (matrix_KBB.shape[1] + TILE - 1) // TILE * TILE
    held_H, panel, swept, factor = np.empty(length), np.empty(TILE * width), np.empty(TILE * width), np.empty(TILE**2)
    for k in range(len(matrix_KBB)):
        take_negative(matrix_KBB[k], held_H)
        for row in range(0, width, TILE):
            at = gather(held_H, row, width, panel)
            if not inverse_factor(held_H[at : at + TILE**2], factor):
                failed_K[k] = True
                break
            transform(panel, factor, width, swept)
            panel.reshape(TILE, width)[:, row : row + TILE] = 0
            add(held_H, panel, panel, width)
            scatter(swept, row, width, held_H)
        fill(held_H, inverse_KBB[k])


@compiled
def take_negative(matrix_BB: Array, held_H: Array) -> None:
    """What is held of -F; the identity, negative, in rows and columns behind the last."""
    size, at = len(matrix_BB), 0
    for row in range(0, size, TILE):
        for column in range(row, size, TILE):
            for r in range(row, row + TILE):
                for c in range(column, column + TILE):
                    held_H[at] = -matrix_BB[r, c] if r < size and c < size else -1.0 * (r == c)
                    at += 1


@compiled
def gather(held_H: Array, row: int, width: int, panel: Array) -> int:
    """All of a row of tiles, with the identity in the place of the one on the diagonal; returns where that one is."""
    at, left = row // TILE * TILE**2, width // TILE  # the tile in the column of ``row``, and how many its row has
    for column in range(0, row, TILE):
        for c in range(TILE):
            for q in range(TILE):
                panel[q * width + column + c] = held_H[at + c * TILE + q]
        left -= 1
        at += left * TILE**2
    for column in range(row, width, TILE):
        for q in range(TILE):
            store(load(held_H, at + (column - row + q) * TILE), panel, q * width + column)
    for q in range(TILE):
        for c in range(TILE):
            panel[q * width + row + c] = 1.0 * (q == c)
    return at


@compiled
def scatter(panel: Array, row: int, width: int, held_H: Array) -> None:
    """Write a row of tiles: the inverse of :func:`gather`, all of it."""
    at, left = row // TILE * TILE**2, width // TILE
    for column in range(0, row, TILE):
        for c in range(TILE):
            for q in range(TILE):
                held_H[at + c * TILE + q] = panel[q * width + column + c]
        left -= 1
        at += left * TILE**2
    for column in range(row, width, TILE):
        for q in range(TILE):
            store(load(panel, q * width + column), held_H, at + (column - row + q) * TILE)


@compiled
def inverse_factor(tile: Array, factor: Array) -> bool:
    """Upper V with ``V V^T = (-tile)^-1``; False if a pivot is not positive. ``tile`` is used up."""
    for r in range(TILE):
        pivot = -tile[r * TILE + r]
        if not pivot > 0:
            return False
        scale = 1 / np.sqrt(pivot)
        for c in range(r, TILE):
            tile[r * TILE + c] *= -scale  # a row of U, with U^T U = -tile
        for i in range(r + 1, TILE):
            for c in range(i, TILE):
                tile[i * TILE + c] += tile[r * TILE + i] * tile[r * TILE + c]
    factor[:] = 0
    for c in range(TILE):
        scale = 1 / tile[c * TILE + c]
        factor[c * TILE + c] = scale
        for r in range(c):
            total = 0.0
            for k in range(r, c):
                total += factor[r * TILE + k] * tile[k * TILE + c]
            factor[r * TILE + c] = -total * scale
    return True


@compiled
def transform(panel: Array, factor: Array, width: int, swept: Array) -> None:
    """``panel = V^T panel``, and then ``swept = V panel``."""
    for at in range(0, width, TILE):
        product(factor, 1, TILE, panel, at, width, panel)
        product(factor, TILE, 1, panel, at, width, swept)


@compiled
def product(factor: Array, down: int, along: int, panel: Array, at: int, width: int, result: Array) -> None:
    """Eight columns of a matrix times a panel; the matrix has steps of ``down`` to a next row, ``along`` in a row."""
    x0, x1 = load(panel, at), load(panel, at + width)
    x2, x3 = load(panel, at + 2 * width), load(panel, at + 3 * width)
    x4, x5 = load(panel, at + 4 * width), load(panel, at + 5 * width)
    x6, x7 = load(panel, at + 6 * width), load(panel, at + 7 * width)
    for row in range(TILE):
        i = row * down
        total, other = multiply(spread(factor, i), x0), multiply(spread(factor, i + along), x1)
        total, other = fma(spread(factor, i + 2 * along), x2, total), fma(spread(factor, i + 3 * along), x3, other)
        total, other = fma(spread(factor, i + 4 * along), x4, total), fma(spread(factor, i + 5 * along), x5, other)
        total, other = fma(spread(factor, i + 6 * along), x6, total), fma(spread(factor, i + 7 * along), x7, other)
        store(plus(total, other), result, at + row * width)
