"""Triangles of matrices, compiled for the CPU.

A pass over the calibration images changes every Fisher matrix once a batch, and all of them are far larger than the
caches. What a batch adds to a tile is therefore summed up in registers, tiles are taken in the order of memory, and the
next ones are asked for while this one is computed: one reading and one writing of memory, and one rounding, a batch.

Shape suffixes: K matrices, B rows and columns of each, H numbers that are held of it, W: B rounded up to whole tiles, N
vectors.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovit_deploy.kernels.compiled import Array, compiled
from ovit_deploy.kernels.triangle import TILE
from ovit_deploy.kernels.vectors import fma, load, plus, prefetch, spread, store, zeros

AHEAD = 16 * TILE**2  # how far ahead numbers are asked for


def in_threads(function: Callable[[slice], None], count: int) -> None:
    """Run on as many runs of ``count`` matrices as torch has threads."""
    num_threads = min(torch.get_num_threads(), count)
    if num_threads <= 1:
        function(slice(0, count))
        return
    edges = [count * part // num_threads for part in range(num_threads + 1)]
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(function, (slice(*pair) for pair in pairwise(edges))))


def whole(held_KH: Tensor, size: int) -> Tensor:
    """See :func:`ovit_deploy.kernels.triangle.whole`."""
    matrix_KBB = held_KH.new_empty(len(held_KH), size, size)
    held, matrix = held_KH.contiguous().numpy(), matrix_KBB.numpy()
    in_threads(lambda part: fill_all(held[part], matrix[part]), len(held))
    return matrix_KBB


def add_products(held_KH: Tensor, vector_KNB: Tensor, scale: float) -> None:
    """See :func:`ovit_deploy.kernels.triangle.add_products`."""
    held, vectors = held_KH.numpy(), vector_KNB.numpy()
    assert held.flags.c_contiguous
    in_threads(lambda part: add_to_all(held[part], vectors[part], scale), len(held))


@compiled
def fill_all(held_KH: Array, matrix_KBB: Array) -> None:
    """Write every matrix."""
    for k in range(len(held_KH)):
        fill(held_KH[k], matrix_KBB[k])


@compiled
def fill(held_H: Array, matrix_BB: Array) -> None:
    """Write one matrix, both halves of it."""
    size, at = len(matrix_BB), 0
    matrix = matrix_BB.reshape(-1)
    for first in range(0, size, TILE):
        for column in range(first, size, TILE):
            high, wide = min(TILE, size - first), min(TILE, size - column)
            if wide == TILE:
                for r in range(TILE):
                    store(load(held_H, at + r * TILE), matrix, (first + r) * size + column)
            else:
                for r in range(high):
                    for c in range(wide):
                        matrix[(first + r) * size + column + c] = held_H[at + r * TILE + c]
            for c in range(wide):
                for r in range(high):
                    matrix[(column + c) * size + first + r] = held_H[at + r * TILE + c]
            at += TILE**2


@compiled
def add_to_all(held_KH: Array, vector_KNB: Array, scale: float) -> None:
    """Add the products of every block's vectors."""
    num_vectors, size = vector_KNB.shape[1:]
    width = (size + TILE - 1) // TILE * TILE
    vector_NW = np.zeros((num_vectors, width), held_KH.dtype)
    scaled_NW = np.zeros((num_vectors, width), held_KH.dtype)
    for k in range(len(held_KH)):
        vector_NW[:, :size] = vector_KNB[k]
        for n in range(num_vectors):
            for j in range(size):
                scaled_NW[n, j] = scale * vector_NW[n, j]
        add(held_KH[k], scaled_NW.reshape(-1), vector_NW.reshape(-1), width)


@compiled
def add(held_H: Array, left: Array, right: Array, width: int) -> None:
    """``held += left^T right`` of vectors [N, W] that lie flat."""
    at = 0
    for row in range(0, width, TILE):
        column = row
        if (width - row) // TILE % 2:
            add_to_tile(held_H, at, left, row, right, column, width)
            at, column = at + TILE**2, column + TILE
        while column < width:
            add_to_half_tiles(held_H, at, left, row, right, column, width)
            add_to_half_tiles(held_H, at + TILE**2 // 2, left, row + TILE // 2, right, column, width)
            at, column = at + 2 * TILE**2, column + 2 * TILE


@compiled
def add_to_tile(held: Array, at: int, left: Array, row: int, right: Array, column: int, width: int) -> None:
    """The tile at ``at``, whose rows begin with ``row`` and its columns with ``column``."""
    for line in range(at, at + 64, 16):
        prefetch(held, line + AHEAD)
    c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = zeros(held)
    for start in range(0, len(left), width):
        i, x = start + row, load(right, start + column)
        c0, c1 = fma(spread(left, i), x, c0), fma(spread(left, i + 1), x, c1)
        c2, c3 = fma(spread(left, i + 2), x, c2), fma(spread(left, i + 3), x, c3)
        c4, c5 = fma(spread(left, i + 4), x, c4), fma(spread(left, i + 5), x, c5)
        c6, c7 = fma(spread(left, i + 6), x, c6), fma(spread(left, i + 7), x, c7)
    increase(held, at, c0), increase(held, at + 8, c1), increase(held, at + 16, c2), increase(held, at + 24, c3)
    increase(held, at + 32, c4), increase(held, at + 40, c5), increase(held, at + 48, c6), increase(held, at + 56, c7)


@compiled
def add_to_half_tiles(held: Array, at: int, left: Array, row: int, right: Array, column: int, width: int) -> None:
    """Four rows of the tile at ``at``, and of the one beside it: fewer reads for each product."""
    for line in (at, at + 16, at + 64, at + 80):
        prefetch(held, line + AHEAD)
    c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = zeros(held)
    for start in range(0, len(left), width):
        i, x, y = start + row, load(right, start + column), load(right, start + column + 8)
        v0, v1 = spread(left, i), spread(left, i + 1)
        v2, v3 = spread(left, i + 2), spread(left, i + 3)
        c0, c1, c2, c3 = fma(v0, x, c0), fma(v1, x, c1), fma(v2, x, c2), fma(v3, x, c3)
        d0, d1, d2, d3 = fma(v0, y, d0), fma(v1, y, d1), fma(v2, y, d2), fma(v3, y, d3)
    increase(held, at, c0), increase(held, at + 8, c1), increase(held, at + 16, c2), increase(held, at + 24, c3)
    increase(held, at + 64, d0), increase(held, at + 72, d1), increase(held, at + 80, d2), increase(held, at + 88, d3)


@compiled
def increase(array: Array, at: int, vector: Any) -> None:
    """Add a vector to ``array[at]`` and what follows."""
    store(plus(load(array, at), vector), array, at)
