"""Rounding of what is kept: each weight to the integers of its output channel, the others making up for it.

"Optimal Brain Compression: A Framework for Accurate Post-Training Quantization and Pruning", Frantar, Singh & Alistarh,
arXiv 2208.11580, section 5 (OBQ), on the Fisher blocks of oViT instead of the layers' input Hessians. Once the kept
weights P of a block have their best values u, moving them on to v costs

    1/2 (v - u)_P^T F_PP (v - u)_P

So they are rounded one at a time, to the nearest multiple q of their channel's scale; the cheapest goes next, and those
that are left to be rounded, L, move to their best values:

    p = argmin (q_p - u_p)^2 / A_pp        u_L += (q_p - u_p) / A_pp A_Lp        A = F_LL^-1

One that has been moved beyond the range, more than half a step away from all multiples, goes at once, as in the paper.

A channel's scale is that of its largest kept weight, before anything is rounded: symmetric, as
``ovit_deploy.quantization`` has it. That weight is a multiple already, so it goes first and stays; a model that is
quantized afterwards finds the same scales in the rounded weights, and changes none of them.

An experiment: what it gained is in recipes/README.md.

Shape suffixes: K Fisher blocks, B weights in a block, P kept weights of it.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.fisher import Fishers, Span, invert, places
from ovit_deploy.pruning.method import target_weights
from ovit_deploy.pruning.streaming import Problem, Settled, by_pieces, within

BITS = range(2, 9)
# In steps; what is exactly between two integers is not beyond the range.
BEYOND = 0.5 + 1e-7


def check_rounding(weight_bits: int | None, num_recomputations: int) -> None:
    """Refuse widths that no engine has, and a pruning that goes on from rounded weights.

    Raises:
        PruningError: One of them.
    """
    if weight_bits is None:
        return
    if weight_bits not in BITS:
        raise PruningError(f"weight_bits is {weight_bits}", f"give {BITS.start} to {BITS.stop - 1}")
    if num_recomputations > 1:
        raise PruningError("weight_bits rounds once, at the end of a pruning", "leave num_recomputations out")


def round_all(problem: Problem, found: Fishers, settled: Settled) -> Settled:
    """What was settled, with the kept weights of every target rounded to ``problem.weight_bits`` bits."""
    assert problem.weight_bits is not None
    before = target_weights(problem.model, problem.masks)
    highest = 2 ** (problem.weight_bits - 1) - 1
    loss = sum(
        round_span(problem, span, held, before[span.name], settled, highest) for span, held in found.blocks.items()
    )
    return replace(settled, loss=loss)


def channel_scales(weight: Tensor, highest: int) -> Tensor:
    """The step between integers, for each weight that of its output channel; 1 where a channel is all zeros."""
    peak = weight.abs().flatten(1).amax(dim=1)
    scale = torch.where(peak > 0, peak / highest, 1.0)
    return scale.reshape(-1, *[1] * (weight.ndim - 1)).expand_as(weight).contiguous()


def round_span(problem: Problem, span: Span, held: Tensor, before: Tensor, settled: Settled, highest: int) -> float:
    """Round all of a settled weight in place; returns the predicted increase of the loss since ``before``."""
    weight, kept_KB = settled.weights[span.name], settled.kept[span.name]
    assert len(kept_KB) == len(span), "one group of blocks is one span a weight"
    scale = channel_scales(weight, highest)

    def run(piece: Span) -> float:
        still_KB = kept_KB[piece.start : piece.stop].to(held.device)
        fisher_KBB = problem.scheme.whole(held[within(piece, span)], span.block_size)
        v_KB = round_kept(piece.cut(weight), fisher_KBB, still_KB, piece.cut(scale), highest).to(weight.dtype)
        loss = problem.scheme.loss(v_KB.double() - piece.cut(before).double(), fisher_KBB)
        piece.put(weight, v_KB)
        return loss

    return sum(by_pieces(problem, span, run))


def round_kept(u_KB: Tensor, fisher_KBB: Tensor, kept_KB: Tensor, scale_KB: Tensor, highest: int) -> Tensor:
    """Multiples of ``scale_KB`` for the kept weights, one at a time, the cheapest first.

    Args:
        u_KB: The best values of the kept weights, zeros elsewhere.
        fisher_KBB: F of the blocks.
        kept_KB: What is kept.
        scale_KB: The step between integers at each weight.
        highest: The largest integer; the smallest is its negative.

    Returns:
        v in float64, exact zeros where pruned.
    """
    at_KP, left_KP = places(kept_KB)
    blocks_K = torch.arange(len(u_KB), device=u_KB.device)
    rows_KPB = fisher_KBB[blocks_K[:, None], at_KP]
    a_KPP, _ = invert(rows_KPB.gather(2, at_KP[:, None, :].expand(-1, at_KP.shape[1], -1)), left_KP)
    u_KP, scale_KP = (tensor.double().gather(1, at_KP) for tensor in (u_KB, scale_KB))
    u_KP = u_KP.masked_fill(~left_KP, 0)
    for _ in range(at_KP.shape[1]):
        q_KP = (u_KP / scale_KP).round().clamp(-highest, highest) * scale_KP
        miss_KP = q_KP - u_KP
        cost_KP = miss_KP.square() / a_KPP.diagonal(dim1=1, dim2=2)
        cost_KP = cost_KP.masked_fill(miss_KP.abs() > BEYOND * scale_KP, -1).masked_fill(~left_KP, torch.inf)
        p_K = cost_KP.argmin(dim=1)
        column_KP = a_KPP[blocks_K, :, p_K].masked_fill(~left_KP, 0)  # all zeros in a block that is done
        pivot_K = a_KPP[blocks_K, p_K, p_K]
        u_KP += (miss_KP[blocks_K, p_K] / pivot_K)[:, None] * column_KP
        u_KP[blocks_K, p_K] = q_KP[blocks_K, p_K]
        a_KPP.baddbmm_(column_KP[:, :, None], (column_KP / pivot_K[:, None])[:, None, :], alpha=-1)
        a_KPP[blocks_K, p_K, p_K] = 1
        left_KP[blocks_K, p_K] = False
    return torch.zeros_like(u_KB, dtype=torch.float64).scatter_add(1, at_KP, u_KP).masked_fill(~kept_KB, 0)
