"""Symmetric matrices held by half: the tiles of 8 by 8 numbers that are on or above the diagonal, row by row of tiles.

A matrix of B rows has T = B / 8 rows of tiles, rounded up, and takes 32 T (T + 1) numbers; each tile's are side by
side, and tiles on the diagonal are whole. What is behind row and column B in the last tiles is zero.

Shape suffixes: K matrices, B rows and columns of each, H numbers that are held of it, T rows of tiles, N vectors.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

TILE = 8


def num_tiles(size: int) -> int:
    """T: rows of tiles of a matrix of ``size`` rows."""
    return -(-size // TILE)


def num_held(size: int) -> int:
    """H: numbers that are held of a matrix of ``size`` rows."""
    return TILE**2 * num_tiles(size) * (num_tiles(size) + 1) // 2


def rows(held_KH: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    """Each row of tiles: its first row (and column) in the matrix, and a view of its tiles [K, tiles, 8, 8]."""
    start = 0
    for row in range(num_tiles(size)):
        length = TILE**2 * (num_tiles(size) - row)
        yield TILE * row, held_KH[:, start : start + length].unflatten(1, (-1, TILE, TILE))
        start += length


def folded(matrix_KBB: Tensor) -> Tensor:
    """What is held of symmetric matrices [K, H]."""
    size = matrix_KBB.shape[1]
    held_KH = matrix_KBB.new_zeros(len(matrix_KBB), num_held(size))
    rest = -size % TILE
    padded_KWW = functional.pad(matrix_KBB, (0, rest, 0, rest))
    for first, tiles in rows(held_KH, size):
        tiles.copy_(padded_KWW[:, first : first + TILE, first:].unflatten(2, (-1, TILE)).transpose(1, 2))
    return held_KH


def whole(held_KH: Tensor, size: int) -> Tensor:
    """The matrices [K, B, B]."""
    if held_KH.is_cuda:
        return whole_by_rows(held_KH, size)
    from ovit_deploy.kernels.triangle import cpu

    return cpu.whole(held_KH, size)


def whole_by_rows(held_KH: Tensor, size: int) -> Tensor:
    """See :func:`whole`."""
    width = TILE * num_tiles(size)
    matrix_KWW = held_KH.new_empty(len(held_KH), width, width)
    for first, tiles in rows(held_KH, size):
        strip = tiles.transpose(1, 2).flatten(2)
        matrix_KWW[:, first : first + TILE, first:] = strip
        matrix_KWW[:, first:, first : first + TILE] = strip.mT
    return matrix_KWW[:, :size, :size]


def add_products(held_KH: Tensor, vector_KNB: Tensor, scale: float) -> None:
    """Add ``scale sum_n v_n v_n^T`` to each matrix, in place."""
    if held_KH.is_cuda:
        add_products_by_rows(held_KH, vector_KNB, scale)
        return
    from ovit_deploy.kernels.triangle import cpu

    cpu.add_products(held_KH, vector_KNB, scale)


def add_products_by_rows(held_KH: Tensor, vector_KNB: Tensor, scale: float) -> None:
    """See :func:`add_products`."""
    size = vector_KNB.shape[2]
    padded_KNW = functional.pad(vector_KNB, (0, -size % TILE))
    for first, tiles in rows(held_KH, size):
        product = padded_KNW[:, :, first : first + TILE].mT @ padded_KNW[:, :, first:]
        tiles.add_(product.unflatten(2, (-1, TILE)).transpose(1, 2), alpha=scale)


def diagonal(held_KH: Tensor, size: int) -> Tensor:
    """The diagonals [K, B], copied."""
    return held_KH[:, places_of_diagonal(size).to(held_KH.device)]


def add_to_diagonal(held_KH: Tensor, amount_K: Tensor | float, size: int) -> None:
    """Add a number to the whole diagonal of each matrix, in place."""
    places_B = places_of_diagonal(size).to(held_KH.device)
    amount = torch.as_tensor(amount_K, dtype=held_KH.dtype, device=held_KH.device)
    held_KH.index_add_(1, places_B, amount.reshape(-1, 1).expand(len(held_KH), size))


def places_of_diagonal(size: int) -> Tensor:
    """Where the diagonal stands in what is held [B]."""
    at_B, length = torch.arange(size), num_tiles(size)
    row_B = at_B // TILE
    return TILE**2 * (row_B * length - row_B * (row_B - 1) // 2) + (TILE + 1) * (at_B % TILE)


def restrict(held_KH: Tensor, active_KB: Tensor) -> None:
    """Set rows and columns that are not active to zero, in place."""
    size = active_KB.shape[1]
    active_KW = functional.pad(active_KB.to(held_KH), (0, -size % TILE))
    for first, tiles in rows(held_KH, size):
        tiles.mul_(active_KW[:, first:].unflatten(1, (-1, 1, TILE)))
        tiles.mul_(active_KW[:, None, first : first + TILE, None])


def squares(held_KH: Tensor, size: int) -> Tensor:
    """The sum of the squares of each matrix's numbers [K], in float64."""
    total_K = held_KH.new_zeros(len(held_KH), dtype=torch.float64)
    for _, tiles in rows(held_KH, size):
        own, others = tiles[:, :1], tiles[:, 1:]
        for part, times in ((own, 1), (others, 2)):
            total_K += times * torch.linalg.vector_norm(part, dim=(1, 2, 3), dtype=torch.float64).square()
    return total_K
