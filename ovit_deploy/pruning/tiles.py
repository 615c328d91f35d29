"""The order of a weight's numbers in which those of a tile of r rows and c columns follow one another.

Tiles go along the rows of tiles, and a tile's own numbers row by row. With one row that is the order in memory.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# Rows (outputs) and columns (inputs).
Tile = tuple[int, int]


def to_tiles(weight: Tensor, tile: Tile) -> Tensor:
    """A weight, or what is shaped like one, as a flat tensor in the order of its tiles."""
    rows, columns = tile
    if rows == 1:
        return weight.reshape(-1)
    return weight.reshape(weight.shape[0] // rows, rows, -1, columns).transpose(1, 2).reshape(-1)


def from_tiles(flat: Tensor, shape: Sequence[int], tile: Tile) -> Tensor:
    """The inverse of `to_tiles`: the tensor of ``shape`` whose numbers are in the order of its tiles."""
    rows, columns = tile
    if rows == 1:
        return flat.reshape(*shape)
    return flat.reshape(shape[0] // rows, -1, rows, columns).transpose(1, 2).reshape(*shape)


def positions(start: int, stop: int, row: int, tile: Tile) -> Tensor:
    """Where numbers ``start`` to ``stop`` of the order of tiles stand in a weight whose rows are ``row`` long."""
    rows, columns = tile
    at = torch.arange(start, stop)
    band, within_band = at // (rows * row), at % (rows * row)
    which, inside = within_band // (rows * columns), within_band % (rows * columns)
    return (band * rows + inside // columns) * row + which * columns + inside % columns
