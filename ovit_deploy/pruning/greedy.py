"""Greedy elimination under a pattern: the curve of each block.

Shape suffixes: K blocks, B weights in a block.
"""

from torch import Tensor

from ovit_deploy.kernels.eliminate import eliminate, eliminate_groups
from ovit_deploy.pruning.allocation import Curve
from ovit_deploy.pruning.patterns import Pattern


def greedy_curve(w_KB: Tensor, finv_KBB: Tensor, active_KB: Tensor, pattern: Pattern) -> Curve:
    """The order in which weights go, or groups of them that go whole, and what each step costs.

    What N:M must keep stands after all that may go, at an infinite loss.

    Args:
        w_KB: Present weights, those of a group side by side.
        finv_KBB: Inverse curvature over the active weights.
        active_KB: What is not pruned yet.
        pattern: Which weights may be zero together.
    """
    if pattern.whole:
        found = eliminate_groups(w_KB.double(), finv_KBB, active_KB, group=pattern.group)
        return Curve(found.rank_KB, found.marginal_KB)
    found = eliminate(w_KB.double(), finv_KBB, active_KB, group=pattern.group, limit=pattern.limit)
    return staying_last(Curve(found.rank_KB, found.marginal_KB), active_KB & (found.rank_KB == 0))


def staying_last(curve: Curve, stays_KB: Tensor) -> Curve:
    """The curve with what must stay after all that may go."""
    rank_KB = curve.rank_KB.masked_fill(stays_KB, curve.rank_KB.shape[1])
    return Curve(rank_KB, curve.marginal_KB.masked_fill(stays_KB, float("inf")))
