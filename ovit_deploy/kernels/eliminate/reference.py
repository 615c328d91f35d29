"""Elimination in batched torch, as the formula is written: the oracle of the tests and the baseline of the benchmark.

Every step rewrites the inverse of every block, so a step costs the traffic of K B^2 numbers whatever remains in them.

Shape suffixes: K Fisher blocks, B weights in a block.
"""

import torch
from torch import Tensor

from ovit_deploy.kernels.eliminate import CANCELLED, Elimination


def eliminate(
    w_KB: Tensor, finv_KBB: Tensor, active_KB: Tensor, counts_K: Tensor, *, dtype: torch.dtype = torch.float64
) -> Elimination:
    """See :func:`ovit_deploy.kernels.eliminate.eliminate`; works in ``dtype`` and returns the dtype of ``w_KB``."""
    remaining_KB = active_KB.clone()
    u_KB = w_KB.to(dtype) * active_KB
    inverse_KBB = finv_KBB.to(dtype) * active_KB[:, :, None] * active_KB[:, None, :]
    floor_KB = inverse_KBB.diagonal(dim1=1, dim2=2) * (CANCELLED * torch.finfo(dtype).eps)
    rank_KB = torch.zeros_like(w_KB, dtype=torch.int32)
    marginal_KB = torch.zeros_like(u_KB)
    for turn in range(1, int(counts_K.max()) + 1 if len(counts_K) else 1):
        open_K = counts_K >= turn
        saliency_KB = u_KB.square() / (2 * torch.maximum(inverse_KBB.diagonal(dim1=1, dim2=2), floor_KB))
        loss_K, p_K = saliency_KB.masked_fill(~remaining_KB, torch.inf).min(dim=1)
        gone_KB = torch.zeros_like(remaining_KB).scatter(1, p_K[:, None], open_K[:, None])
        rank_KB[gone_KB] = turn
        marginal_KB[gone_KB] = loss_K[open_K]
        u_KB, inverse_KBB = remove(u_KB, inverse_KBB, p_K, floor_KB, open_K)
        remaining_KB &= ~gone_KB
        u_KB = u_KB * remaining_KB
    return Elimination(rank_KB, marginal_KB.to(w_KB.dtype), u_KB.to(w_KB.dtype))


def remove(u_KB: Tensor, inverse_KBB: Tensor, p_K: Tensor, floor_KB: Tensor, open_K: Tensor) -> tuple[Tensor, Tensor]:
    """Set weight p of each open block to zero and let the rest of the block compensate."""
    blocks_K = torch.arange(len(u_KB), device=u_KB.device)
    column_KB = inverse_KBB[blocks_K, p_K]
    pivot_K = column_KB[blocks_K, p_K]
    still_K = ~open_K | (pivot_K <= floor_KB[blocks_K, p_K])
    step_KB = (column_KB / pivot_K[:, None]).masked_fill(still_K[:, None], 0)
    u_KB = u_KB - step_KB * u_KB[blocks_K, p_K][:, None]
    return u_KB, torch.baddbmm(inverse_KBB, step_KB[:, :, None], column_KB[:, None, :], alpha=-1)
