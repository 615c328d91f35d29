"""One sweep over the columns of a weight, from left to right: what SparseGPT and FastOViT have in common.

Frantar & Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", arXiv 2301.00774,
section 3 and Algorithm 1. All rows have the same Hessian H, and weights right of a column compensate for what the
column loses, so all rows also share the inverses of H over the columns that are still to come. One triangular factor
holds all of them::

    H^-1 = U^T U, U upper triangular
    saliency   w_ij^2 / (2 U_jj^2), chosen for a run of columns when the sweep reaches it
    remove     e_ij = w_ij / U_jj where w_ij goes, else 0;  w_i,j: -= e_ij U_j,j:

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
from ovit_deploy.pruning.layerwise import Pattern, PrunedLayer, smallest_of_rows
from ovit_deploy.pruning.magnitude import without_smallest
from ovit_deploy.pruning.shares import in_proportion

# Copies of H that a sweep takes.
COPIES = 4
# Given the saliencies of a run of columns [G, O, S] and its first column: True at what goes.
Choose = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Swept(PrunedLayer):
    """A layer after a sweep, and the loss ``1/2 tr(D H D^T)`` of its change."""

    loss: float


def prune_columns(
    w_GOI: Tensor, kept_GOI: Tensor, hessian_GII: Tensor, num_zeros: int, *, columns: int, pattern: Pattern | None
) -> Swept:
    """Prune a layer to ``num_zeros`` zeros.

    Args:
        w_GOI: Present weights.
        kept_GOI: False where they are pruned already.
        hessian_GII: Positive definite, float64.
        num_zeros: Those that are there already included; with a pattern, what it gives.
        columns: Weights are chosen, and later columns brought up to date, this many columns at a time.
        pattern: (N, M) chooses M columns at a time instead, M - N of each row's group.
    """
    if pattern is None:
        return sweep(w_GOI, hessian_GII, whole_runs(kept_GOI, num_zeros, columns), run=columns, batch=columns)
    group = pattern[1]
    batch = max(columns // group, 1) * group
    return sweep(w_GOI, hessian_GII, groups_of_rows(kept_GOI, pattern), run=group, batch=batch)


def whole_runs(kept_GOI: Tensor, num_zeros: int, run: int) -> Choose:
    """The smallest of all rows of a run together; what is still there loses the same share in each run."""
    present = [int((~part).sum()) for part in kept_GOI.split(run, dim=2)]
    active = [int(part.sum()) for part in kept_GOI.split(run, dim=2)]
    removed = in_proportion(active, num_zeros - sum(present))

    def choose(saliency_GOS: Tensor, start: int) -> Tensor:
        at = start // run
        kept_GOS = kept_GOI[:, :, start : start + run]
        return ~without_smallest(saliency_GOS.masked_fill(~kept_GOS, -1), present[at] + removed[at])

    return choose


def groups_of_rows(kept_GOI: Tensor, pattern: Pattern) -> Choose:
    """The smallest M - N of each row's group of M."""
    kept, group = pattern

    def choose(saliency_GOS: Tensor, start: int) -> Tensor:
        kept_GOS = kept_GOI[:, :, start : start + group]
        return smallest_of_rows(saliency_GOS.masked_fill(~kept_GOS, -1), group - kept)

    return choose


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
    errors: list[Tensor] = []
    pivot_GI = factor_GII.diagonal(dim1=1, dim2=2)
    for j in range(start, stop):
        if (j - start) % run == 0:
            here = slice(j, min(j + run, stop))
            gone_GOI[:, :, here] = choose((u_GOI[:, :, here] / pivot_GI[:, None, here]).square() / 2, j)
        error_GO = (u_GOI[:, :, j] / pivot_GI[:, None, j]).masked_fill(~gone_GOI[:, :, j], 0)
        u_GOI[:, :, j:stop] -= error_GO[:, :, None] * factor_GII[:, None, j, j:stop]
        errors.append(error_GO)
    return torch.stack(errors, dim=2)


def inverse_factor(hessian_GII: Tensor) -> tuple[Tensor, float]:
    """The upper triangular U of ``H^-1 = U^T U``, and the largest jitter.

    Read from the last row and column to the first, the Cholesky factor of H is the inverse of U: H^-1 is not formed.
    """
    lower_GII, jitter_G = cholesky(hessian_GII.flip(1, 2))
    identity_II = torch.eye(lower_GII.shape[1], dtype=lower_GII.dtype, device=lower_GII.device)
    factor_GII = torch.linalg.solve_triangular(lower_GII, identity_II.expand_as(lower_GII), upper=False)
    return factor_GII.flip(1, 2), float(jitter_G.max())
