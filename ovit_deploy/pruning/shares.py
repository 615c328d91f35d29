"""How many zeros each layer gets, to an exact total, by rules that look at layers as a whole.

    uniform   every layer to the same sparsity
    erk       Erdos-Renyi-kernel: densities in proportion to the sum of a weight's dimensions over their product, so
              that large layers get sparser; RigL, Evci et al., arXiv 1911.11134, section 3 (1)
    shifted   a common sparsity, and an offset of each layer's own: what OWL makes of outliers (owl.py)

Each layer is a straight line in one number t, ``zeros_l = start_l + slope_l t``, cut off where it is dense or empty or
at bounds of its own. The sum over layers is piecewise linear and rises with t, so the t of a total is found
by bisection over its corners and one division, in exact fractions. Shares are then rounded down, and what is missing
goes to the largest remainders; bounds are whole numbers and hold.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, prod

from ovit_deploy.errors import PruningError

# Least and most zeros of a layer.
Bounds = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Line:
    """The zeros of a layer as t grows: ``start + slope t``, between ``low`` and ``high``."""

    start: Fraction
    slope: Fraction
    low: int
    high: int

    def at(self, t: Fraction) -> Fraction:
        """Zeros at t."""
        return min(max(self.start + self.slope * t, Fraction(self.low)), Fraction(self.high))

    def corners(self) -> tuple[Fraction, Fraction]:
        """Where the line meets its bounds."""
        return (self.low - self.start) / self.slope, (self.high - self.start) / self.slope


def uniform_shares(sizes: Mapping[str, int], total_zeros: int, *, bounds: Bounds | None = None) -> dict[str, int]:
    """Zeros of each layer at one common sparsity, as far as their bounds allow.

    Args:
        sizes: Weights of each layer.
        total_zeros: Over all layers.
        bounds: Least and most zeros of layers; 0 and all of them where not given.

    Raises:
        PruningError: The bounds do not allow the total.
    """
    return shifted_shares(sizes, total_zeros, dict.fromkeys(sizes, 0.0), bounds=bounds)


def erk_shares(
    shapes: Mapping[str, Sequence[int]], total_zeros: int, *, unit: int = 1, bounds: Bounds | None = None
) -> dict[str, int]:
    """Zeros of each layer with densities ``min(1, t sum(shape) / prod(shape))``, t such that the total is met.

    Args:
        shapes: Of the weights: [outputs, inputs, kernel sizes ...].
        total_zeros: Over all layers.
        unit: How many weights go at a time; totals, bounds and shares count these.
        bounds: As for `uniform_shares`.

    Raises:
        PruningError: The bounds do not allow the total.
    """
    sizes = {name: prod(shape) // unit for name, shape in shapes.items()}
    limits = within(sizes, bounds)
    lines = {
        name: Line(Fraction(sizes[name]), Fraction(sizes[name] * sum(shape), prod(shape)), *limits[name])
        for name, shape in shapes.items()
    }
    return on_lines(lines, total_zeros)


def shifted_shares(
    sizes: Mapping[str, int], total_zeros: int, offsets: Mapping[str, float], *, bounds: Bounds | None = None
) -> dict[str, int]:
    """Zeros of each layer at sparsities ``t + offset``, t such that the total is met.

    Args:
        sizes: Weights of each layer.
        total_zeros: Over all layers.
        offsets: Of each layer's sparsity from the common one.
        bounds: As for `uniform_shares`.

    Raises:
        PruningError: The bounds do not allow the total.
    """
    limits = within(sizes, bounds)
    lines = {name: Line(size * Fraction(offsets[name]), Fraction(size), *limits[name]) for name, size in sizes.items()}
    return on_lines(lines, total_zeros)


def within(sizes: Mapping[str, int], bounds: Bounds | None) -> dict[str, tuple[int, int]]:
    """The bounds of every layer, none below 0 or above its size."""
    return {name: (bounds or {}).get(name, (0, size)) for name, size in sizes.items()}


def on_lines(lines: Mapping[str, Line], total_zeros: int) -> dict[str, int]:
    """The whole numbers nearest to the lines at the t where they add up to ``total_zeros``."""
    check_total({name: (line.low, line.high) for name, line in lines.items()}, total_zeros)
    lines = {name: line for name, line in lines.items() if line.slope}
    if not lines:
        return {}

    def total(t: Fraction) -> Fraction:
        return sum((line.at(t) for line in lines.values()), Fraction(0))

    corners = sorted(corner for line in lines.values() for corner in line.corners())
    after = bisect_left(corners, total_zeros, key=total)
    t = corners[after]
    if after and (below := total(corners[after - 1])) < total(t):
        t = corners[after - 1] + (total_zeros - below) * (t - corners[after - 1]) / (total(t) - below)
    return rounded({name: line.at(t) for name, line in lines.items()}, total_zeros)


def check_total(bounds: Bounds, total_zeros: int) -> None:
    """Refuse a total that the bounds of the layers do not allow."""
    for name, (low, high) in bounds.items():
        if low > high:
            raise PruningError(f"{name} has at least {low} zeros and may have at most {high}", "loosen its bounds")
    least, most = (sum(pair[side] for pair in bounds.values()) for side in (0, 1))
    if not least <= total_zeros <= most:
        raise PruningError(
            f"{total_zeros} zeros cannot be had: the bounds of the layers add up to between {least} and {most}",
            "change the sparsity, or min_sparsity and max_sparsity",
        )


def rounded(shares: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """Whole numbers that add up to ``total``: rounded down, then by the largest remainder."""
    down = {name: floor(share) for name, share in shares.items()}
    missing = total - sum(down.values())
    for name in sorted(shares, key=lambda name: down[name] - shares[name])[:missing]:
        down[name] += 1
    return down


def in_proportion(sizes: Sequence[int], num: int) -> list[int]:
    """``num`` dealt out by ``sizes``: rounded down, then by the largest remainder. No share exceeds its size."""
    total = sum(sizes)
    assert 0 <= num <= total
    shares = [num * size // total if total else 0 for size in sizes]
    missing = num - sum(shares)
    by_remainder = sorted(range(len(sizes)), key=lambda at: -(num * sizes[at] % total) if total else 0)
    for at in by_remainder[:missing]:
        shares[at] += 1
    return shares
