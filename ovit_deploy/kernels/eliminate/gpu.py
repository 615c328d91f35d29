"""Elimination in Triton: one program a block.

It has been run in Triton's interpreter on the CPU only, where it agrees with the reference; on no GPU so far.

As cpu.py it never rewrites the inverse: after k turns ``A = F^-1 - V^T V`` with one row of V a turn. A program keeps
what the choice of a pivot looks at (u, the diagonal of A, who remains) in registers, and V in a scratch of its own in
global memory, B^2 numbers. A turn costs one sweep over the rows of V so far. ``PROGRAMS`` blocks at a time have
scratch, so it is 200 MB at B = 256 in float32 however many blocks there are.

Shape suffixes: K Fisher blocks, B weights in a block, P those padded to a power of two, T turns, C rows of V in a load.
"""

from typing import Any

import torch
from torch import Tensor

from ovit_deploy.errors import PruningError
from ovit_deploy.kernels.eliminate import CANCELLED, Elimination

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError as error:
    raise PruningError(
        "elimination on a GPU needs triton, which is not installed", "pip install triton, or prune on the CPU"
    ) from error

PROGRAMS = 768
TILE = 4096  # numbers of V in a load


def eliminate(
    w_KB: Tensor, finv_KBB: Tensor, active_KB: Tensor, counts_K: Tensor, group: int = 1, limit: int = 1
) -> Elimination:
    """See :func:`ovit_deploy.kernels.eliminate.eliminate`; works in the dtype of ``finv_KBB``, on its device."""
    num_blocks, size = w_KB.shape
    padded = triton.next_power_of_2(size)
    dtype, device = finv_KBB.dtype, finv_KBB.device
    gone_KG = (~active_KB).unflatten(1, (-1, group)).sum(dim=2, dtype=torch.int32)
    inputs = (
        w_KB.to(dtype).contiguous(),
        finv_KBB.contiguous(),
        active_KB.to(torch.int8).contiguous(),
        gone_KG.repeat_interleave(group, dim=1).contiguous(),
        counts_K.to(torch.int32),
    )
    rank_KB = torch.zeros(num_blocks, size, dtype=torch.int32, device=device)
    marginal_KB, weights_KB = (torch.zeros(num_blocks, size, dtype=dtype, device=device) for _ in range(2))
    scratch_KTP = torch.empty(min(num_blocks, PROGRAMS), size, padded, dtype=dtype, device=device)
    launch: Any = eliminate_block  # its constants are plain numbers here, and tl.constexpr only inside
    for start in range(0, num_blocks, PROGRAMS):
        part = slice(start, start + PROGRAMS)
        tensors = [tensor[part] for tensor in (*inputs, rank_KB, marginal_KB, weights_KB)]
        launch[(len(tensors[0]),)](
            *tensors,
            scratch_KTP,
            CANCELLED * torch.finfo(dtype).eps,
            B=size,
            P=padded,
            C=max(TILE // padded, 1),
            GROUP=group,
            LIMIT=limit,
        )
    return Elimination(rank_KB, marginal_KB.to(w_KB.dtype), weights_KB.to(w_KB.dtype))


@triton.jit
def eliminate_block(
    w_ptr,
    finv_ptr,
    active_ptr,
    zeros_ptr,  # int32 [K, B]: how many zeros the group of each weight has
    counts_ptr,
    rank_ptr,
    marginal_ptr,
    weights_ptr,
    scratch_ptr,
    cancelled,
    B: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
    GROUP: tl.constexpr,
    LIMIT: tl.constexpr,
):
    """Eliminate in one block: its removals in turn, each choosing the weight that costs least."""
    block = tl.program_id(0).to(tl.int64)
    at_P = tl.arange(0, P)
    inside_P = at_P < B
    finv_ptr += block * B * B
    v_ptr = scratch_ptr + block * B * P
    left_P = tl.load(active_ptr + block * B + at_P, mask=inside_P, other=0) != 0
    zeros_P = tl.load(zeros_ptr + block * B + at_P, mask=inside_P, other=LIMIT)
    u_P = tl.load(w_ptr + block * B + at_P, mask=left_P, other=0.0)
    diag_P = tl.load(finv_ptr + at_P * B + at_P, mask=left_P, other=1.0)
    floor_P = (diag_P * cancelled).to(diag_P.dtype)
    rank_P = tl.zeros([P], tl.int32)
    marginal_P = tl.zeros_like(u_P)
    count = tl.load(counts_ptr + block)
    for turn in range(count):
        score_P = tl.where(left_P & (zeros_P < LIMIT), u_P * u_P / diag_P, float("inf"))
        p = tl.argmin(score_P, axis=0, tie_break_left=True)
        chosen_P = at_P == p
        rank_P = tl.where(chosen_P, turn + 1, rank_P)
        marginal_P = tl.where(chosen_P, score_P / 2, marginal_P)
        row_P = tl.load(finv_ptr + p * B + at_P, mask=left_P, other=0.0)
        for start in range(0, turn, C):
            t_C = start + tl.arange(0, C)
            before_C = t_C < turn
            v_CP = tl.load(v_ptr + t_C[:, None] * P + at_P[None, :], mask=before_C[:, None], other=0.0)
            c_C = tl.load(v_ptr + t_C * P + p, mask=before_C, other=0.0)
            row_P -= tl.sum(c_C[:, None] * v_CP, axis=0)
        pivot = tl.sum(tl.where(chosen_P, diag_P, 0.0), axis=0)
        floor = tl.sum(tl.where(chosen_P, floor_P, 0.0), axis=0)
        u = tl.sum(tl.where(chosen_P, u_P, 0.0), axis=0)
        scale = tl.where(pivot > floor, 1 / tl.sqrt(tl.maximum(pivot, floor)), 0.0)  # type: ignore[operator]
        factor_P = tl.where(left_P, row_P * scale, 0.0)
        u_P -= factor_P * (u * scale)
        diag_P = tl.maximum(diag_P - factor_P * factor_P, floor_P)
        left_P = left_P & (at_P != p)
        zeros_P += ((at_P // GROUP) == (p // GROUP)).to(tl.int32)
        tl.store(v_ptr + turn * P + at_P, factor_P)
        tl.debug_barrier()  # other threads of this program read the row in later turns
    tl.store(rank_ptr + block * B + at_P, rank_P, mask=inside_P)
    tl.store(marginal_ptr + block * B + at_P, marginal_P, mask=inside_P)
    tl.store(weights_ptr + block * B + at_P, tl.where(left_P, u_P, 0.0), mask=inside_P)
