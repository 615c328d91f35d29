"""One sweep over the columns of a weight, from left to right: what SparseGPT and FastOViT have in common.

Frantar & Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", arXiv 2301.00774,
section 3 and Algorithm 1. All rows have the same Hessian H, and weights right of a column compensate for what the
column loses, so all rows also share the inverses of H over the columns that are still to come. One triangular factor
holds all of them::

    H^-1 = U^T U, U upper triangular
    saliency   w_ij^2 / (2 U_jj^2), chosen for a run of columns when the sweep reaches it
    remove     e_ij = w_ij / U_jj where w_ij goes, else 0;  w_i,j: -= e_ij U_j,j:

Columns q that go together are e_q = w_q (U_qq)^-1, and cost ``1/2 |e_q|^2``.

Changes D = -E U add up to the loss ``1/2 tr(D H D^T) = 1/2 sum e_ij^2``, exactly. Columns beyond a batch are brought up
to date once a batch, by one matrix product.

A weight that was pruned before takes part as others do, except that it must go: what compensation has put there is
removed again and moves on to the columns after it. So earlier zeros stay, and the rest is conditioned on them.

Shape suffixes: G groups of a convolution, O outputs of a group, I inputs, C columns of a batch, S columns of a run.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ovit_deploy.pruning.fisher import cholesky
from ovit_deploy.pruning.layerwise import PrunedLayer, in_units, out_of_units, smallest_of_rows
from ovit_deploy.pruning.magnitude import without_smallest
from ovit_deploy.pruning.patterns import Pattern
from ovit_deploy.pruning.shares import in_proportion

# Copies of H that a sweep takes.
COPIES = 4
# Given the weights of a run of columns [G, O, S], U over them [G, S, S] and its first column: True at what goes.
Choose = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Swept(PrunedLayer):
    """A layer after a sweep, and the loss ``1/2 tr(D H D^T)`` of its change."""

    loss: float


def prune_columns(
    w_GOI: Tensor, kept_GOI: Tensor, hessian_GII: Tensor, num_zeros: int, *, columns: int, pattern: Pattern
) -> Swept:
    """Prune a layer to ``num_zeros`` zeros.

    Args:
        w_GOI: Present weights.
        kept_GOI: False where they are pruned already.
        hessian_GII: Positive definite, float64.
        num_zeros: Those that are there already included; with N:M, what it gives.
        columns: Weights are chosen, and later columns brought up to date, this many columns at a time; as many whole
            groups of a pattern as go in, or one.
        pattern: N:M chooses the columns of one group at a time instead.
    """
    batch = max(columns // pattern.columns, 1) * pattern.columns
    if pattern.limited:
        return sweep(w_GOI, hessian_GII, groups_of_rows(kept_GOI, pattern), run=pattern.columns, batch=batch)
    return sweep(w_GOI, hessian_GII, whole_runs(kept_GOI, num_zeros, batch, pattern), run=batch, batch=batch)


def whole_runs(kept_GOI: Tensor, num_zeros: int, run: int, pattern: Pattern) -> Choose:
    """The smallest units of all rows of a run together; what is still there loses the same share in each run."""
    there_GPQ = in_units(kept_GOI.double(), pattern.tile) > 0
    parts = there_GPQ.split(run // pattern.columns, dim=2)
    present, active = [int((~part).sum()) for part in parts], [int(part.sum()) for part in parts]
    removed = in_proportion(active, num_zeros // pattern.unit - sum(present))

    def choose(u_GOS: Tensor, factor_GSS: Tensor, start: int) -> Tensor:
        at = start // run
        loss_GPQ = in_units(errors(u_GOS, factor_GSS, pattern.columns).square() / 2, pattern.tile)
        kept_GPQ = without_smallest(loss_GPQ.masked_fill(~parts[at], -1), present[at] + removed[at])
        return ~out_of_units(kept_GPQ, pattern.tile)

    return choose


def groups_of_rows(kept_GOI: Tensor, pattern: Pattern) -> Choose:
    """The smallest M - N of each row's group of M."""

    def choose(u_GOS: Tensor, factor_GSS: Tensor, start: int) -> Tensor:
        kept_GOS = kept_GOI[:, :, start : start + pattern.group]
        saliency_GOS = errors(u_GOS, factor_GSS, 1).square() / 2
        return smallest_of_rows(saliency_GOS.masked_fill(~kept_GOS, -1), pattern.limit)

    return choose


def errors(u_GOS: Tensor, factor_GSS: Tensor, size: int) -> Tensor:
    """``e_q = u_q (U_qq)^-1`` of the columns q of each run of ``size``: 1/2 |e_q|^2 is what removing them costs."""
    if size == 1:
        return u_GOS / factor_GSS.diagonal(dim1=1, dim2=2)[:, None, :]
    own_GQSS = factor_GSS.unflatten(2, (-1, size)).unflatten(1, (-1, size)).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    u_GQOS = u_GOS.unflatten(2, (-1, size)).transpose(1, 2)
    return torch.linalg.solve_triangular(own_GQSS, u_GQOS, upper=True, left=False).transpose(1, 2).flatten(2)


def sweep(w_GOI: Tensor, hessian_GII: Tensor, choose: Choose, *, run: int, batch: int) -> Swept:
    """From the first column to the last; ``batch`` is a multiple of ``run``."""
    assert batch % run == 0
    factor_GII, jitter = inverse_factor(hessian_GII)
    u_GOI = w_GOI.double().clone()
    gone_GOI = torch.zeros_like(u_GOI, dtype=torch.bool)
    loss = 0.0
    for start in range(0, u_GOI.shape[2], batch):
        stop = min(start + batch, u_GOI.shape[2])
        part = slice(start, stop)
        error_GOC = sweep_batch(u_GOI, gone_GOI, factor_GII, choose, start=start, stop=stop, run=run)
        u_GOI[:, :, stop:] -= error_GOC @ factor_GII[:, part, stop:]
        loss += float(error_GOC.square().sum()) / 2
    return Swept(u_GOI.masked_fill_(gone_GOI, 0), ~gone_GOI, jitter, loss)


def sweep_batch(
    u_GOI: Tensor, gone_GOI: Tensor, factor_GII: Tensor, choose: Choose, *, start: int, stop: int, run: int
) -> Tensor:
    """Remove weights of columns ``start`` to ``stop``, in place; returns the errors e of those columns [G, O, C]."""
    batch: list[Tensor] = []
    pivot_GI = factor_GII.diagonal(dim1=1, dim2=2)
    for j in range(start, stop):
        if (j - start) % run == 0:
            here = slice(j, min(j + run, stop))
            gone_GOI[:, :, here] = choose(u_GOI[:, :, here], factor_GII[:, here, here], j)
        error_GO = (u_GOI[:, :, j] / pivot_GI[:, None, j]).masked_fill(~gone_GOI[:, :, j], 0)
        u_GOI[:, :, j:stop] -= error_GO[:, :, None] * factor_GII[:, None, j, j:stop]
        batch.append(error_GO)
    return torch.stack(batch, dim=2)


def inverse_factor(hessian_GII: Tensor) -> tuple[Tensor, float]:
    """The upper triangular U of ``H^-1 = U^T U``, and the largest jitter.

    Read from the last row and column to the first, the Cholesky factor of H is the inverse of U: H^-1 is not formed.
    """
    lower_GII, jitter_G = cholesky(hessian_GII.flip(1, 2))
    identity_II = torch.eye(lower_GII.shape[1], dtype=lower_GII.dtype, device=lower_GII.device)
    factor_GII = torch.linalg.solve_triangular(lower_GII, identity_II.expand_as(lower_GII), upper=False)
    return factor_GII.flip(1, 2), float(jitter_G.max())
