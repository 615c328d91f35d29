"""Swaps after greedy elimination: the order is greedy, so some of what went first would not go in the end.

In every block, at the number of weights that allocation gave it, a pruned weight comes back for a kept one while that
lowers the predicted loss (kernels/swap.py, which has the formula). Not in the paper.

Shape suffixes: K Fisher blocks, B weights in a block.
"""

import torch
from torch import Tensor

from ovit_deploy.pruning.fisher import compensate
from ovit_deploy.pruning.patterns import Pattern


def refine(w_KB: Tensor, fisher_KBB: Tensor, active_KB: Tensor, kept_KB: Tensor, pattern: Pattern) -> Tensor:
    """Kept weights after swaps, as many in each block (and in each group of an N:M pattern) as before.

    The loss of a block never rises: where rounding has hidden that it would, the block stays as it is.
    """
    from ovit_deploy.kernels.swap import swapped  # imports numba, which takes a second

    assert not pattern.whole
    group = pattern.group if pattern.limited else w_KB.shape[1]
    after_KB = swapped(w_KB, fisher_KBB, active_KB, kept_KB, group=group)
    (changed,) = (after_KB != kept_KB).any(dim=1).nonzero(as_tuple=True)
    before_C, after_C = (
        losses(w_KB[changed], fisher_KBB[changed], choice_KB[changed]) for choice_KB in (kept_KB, after_KB)
    )
    back = changed[after_C > before_C]
    return after_KB.index_copy(0, back, kept_KB[back])


def losses(w_KB: Tensor, fisher_KBB: Tensor, kept_KB: Tensor) -> Tensor:
    """``1/2 (u - w)^T F (u - w)`` of each block with the best values of what is kept [K]."""
    change_KB = compensate(w_KB, fisher_KBB, kept_KB) - w_KB.double()
    return torch.einsum("ki,kij,kj->k", change_KB, fisher_KBB.double(), change_KB) / 2
