"""Elimination in batched torch, as the formula is written: the oracle of the tests and the baseline of the benchmark.

Every step rewrites the inverse of every block, so a step costs the traffic of K B^2 numbers whatever remains in them.

Shape suffixes: K Fisher blocks, B weights in a block, G groups of S consecutive weights.
"""

import torch
from torch import Tensor

from ovit_deploy.kernels.eliminate import CANCELLED, Elimination


def eliminate(
    w_KB: Tensor,
    finv_KBB: Tensor,
    active_KB: Tensor,
    counts_K: Tensor,
    group: int = 1,
    limit: int = 1,
    *,
    dtype: torch.dtype = torch.float64,
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
        candidate_KB = remaining_KB & ~full(remaining_KB, group, limit)
        loss_K, p_K = saliency_KB.masked_fill(~candidate_KB, torch.inf).min(dim=1)
        gone_KB = torch.zeros_like(remaining_KB).scatter(1, p_K[:, None], open_K[:, None])
        rank_KB[gone_KB] = turn
        marginal_KB[gone_KB] = loss_K[open_K]
        u_KB, inverse_KBB = remove(u_KB, inverse_KBB, p_K, floor_KB, open_K)
        remaining_KB &= ~gone_KB
        u_KB = u_KB * remaining_KB
    return Elimination(rank_KB, marginal_KB.to(w_KB.dtype), u_KB.to(w_KB.dtype))


def full(remaining_KB: Tensor, group: int, limit: int) -> Tensor:
    """Which weights belong to a group that has as many zeros as it may."""
    gone_KG = (~remaining_KB).unflatten(1, (-1, group)).sum(dim=2)
    return (gone_KG >= limit).repeat_interleave(group, dim=1)


def eliminate_groups(
    w_KB: Tensor,
    finv_KBB: Tensor,
    active_KB: Tensor,
    counts_K: Tensor,
    group: int,
    *,
    dtype: torch.dtype = torch.float64,
) -> Elimination:
    """See :func:`ovit_deploy.kernels.eliminate.eliminate_groups`; as :func:`eliminate` otherwise."""
    remaining_KG = active_KB[:, ::group].clone()
    u_KB = w_KB.to(dtype) * active_KB
    inverse_KBB = finv_KBB.to(dtype) * active_KB[:, :, None] * active_KB[:, None, :]
    floor_KB = inverse_KBB.diagonal(dim1=1, dim2=2) * (CANCELLED * torch.finfo(dtype).eps)
    rank_KG = torch.zeros_like(remaining_KG, dtype=torch.int32)
    marginal_KG = torch.zeros_like(remaining_KG, dtype=dtype)
    for turn in range(1, int(counts_K.max()) + 1 if len(counts_K) else 1):
        open_K = counts_K >= turn
        loss_KG = joint_losses(u_KB, inverse_KBB, floor_KB, group)
        loss_K, q_K = loss_KG.masked_fill(~remaining_KG, torch.inf).min(dim=1)
        gone_KG = torch.zeros_like(remaining_KG).scatter(1, q_K[:, None], open_K[:, None])
        rank_KG[gone_KG] = turn
        marginal_KG[gone_KG] = loss_K[open_K]
        for member in range(group):
            u_KB, inverse_KBB = remove(u_KB, inverse_KBB, group * q_K + member, floor_KB, open_K)
        remaining_KG &= ~gone_KG
        u_KB = u_KB * remaining_KG.repeat_interleave(group, dim=1)
    return Elimination(rank_KG, marginal_KG.to(w_KB.dtype), u_KB.to(w_KB.dtype))


def joint_losses(u_KB: Tensor, inverse_KBB: Tensor, floor_KB: Tensor, group: int) -> Tensor:
    """``1/2 u_q^T (A_qq)^-1 u_q`` of every group [K, G]: its weights leave one after the other, and only it is told."""
    u_KGS, floor_KGS = u_KB.unflatten(1, (-1, group)), floor_KB.unflatten(1, (-1, group))
    blocks_KGSGS = inverse_KBB.unflatten(2, (-1, group)).unflatten(1, (-1, group))
    a_KGSS = blocks_KGSGS.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    loss_KG = torch.zeros_like(u_KGS[..., 0])
    for member in range(group):
        column_KGS = a_KGSS[..., member]
        pivot_KG, floor_KG, left_KG = column_KGS[..., member], floor_KGS[..., member], u_KGS[..., member]
        loss_KG = loss_KG + left_KG.square() / (2 * torch.maximum(pivot_KG, floor_KG))
        step_KGS = (column_KGS / pivot_KG[..., None]).masked_fill((pivot_KG <= floor_KG)[..., None], 0)
        u_KGS = u_KGS - step_KGS * left_KG[..., None]
        a_KGSS = a_KGSS - step_KGS[..., :, None] * column_KGS[..., None, :]
    return loss_KG


def remove(u_KB: Tensor, inverse_KBB: Tensor, p_K: Tensor, floor_KB: Tensor, open_K: Tensor) -> tuple[Tensor, Tensor]:
    """Set weight p of each open block to zero and let the rest of the block compensate."""
    blocks_K = torch.arange(len(u_KB), device=u_KB.device)
    column_KB = inverse_KBB[blocks_K, p_K]
    pivot_K = column_KB[blocks_K, p_K]
    still_K = ~open_K | (pivot_K <= floor_KB[blocks_K, p_K])
    step_KB = (column_KB / pivot_K[:, None]).masked_fill(still_K[:, None], 0)
    u_KB = u_KB - step_KB * u_KB[blocks_K, p_K][:, None]
    return u_KB, torch.baddbmm(inverse_KBB, step_KB[:, :, None], column_KB[:, None, :], alpha=-1)
