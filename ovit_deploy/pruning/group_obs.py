"""Optimal Brain Surgeon on groups of a layer's input columns, with a Kronecker-factored Fisher matrix.

The empirical Fisher of a weight W [O, I] is F = 1/m sum_i vec(g_i) vec(g_i)^T over per-sample gradients g_i [O, I]. Its
partial traces

    A = 1/m sum_i g_i^T g_i   [I, I]        B = 1/m sum_i g_i g_i^T   [O, O]        tr A = tr B = tr F

are exact, and F is taken for B (x) A / tr F: the nearest product to F after one step of power iteration (Van Loan and
Pitsianis 1993; used for structured pruning by LLM Surgeon, arXiv 2312.17244). For a group q of columns, OBS (Hassibi
and Stork 1993) then reads

    loss(q) = 1/2 u_q^T ([F^-1]_qq)^-1 u_q = 1/2 tr(W_q^T B W_q ([A^-1]_qq)^-1) / tr F
    update    W <- W - W_q ([A^-1]_qq)^-1 [A^-1]_q:

and B drops out of the update. Removing groups one after the other is elimination on A^-1 and on W^T B W, both [I, I]:
nothing of the size of F or W is touched. A bias is one more column, with input 1, that belongs to no group and
compensates, too.

Shape suffixes: O outputs, I inputs (with the bias), G groups, S columns of a group, Q columns that go together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ovit_deploy.errors import PruningError


@dataclass(frozen=True)
class Curve:
    """Groups in the order of their removal, several at a step, and the marginal loss of each step."""

    steps: tuple[tuple[int, ...], ...]
    losses: tuple[float, ...]

    def groups(self, num_steps: int) -> set[int]:
        """That are gone after so many steps."""
        return {group for step in self.steps[:num_steps] for group in step}


def damped(a_II: Tensor, damp: float) -> Tensor:
    """``A + damp * mean(diag A) * 1``, in float64.

    Raises:
        PruningError: there are no gradients to speak of.
    """
    a_II = a_II.double()
    mean = a_II.diagonal().mean()
    if not bool(mean > 0):
        raise PruningError(
            "all gradients are zero: a group's loss cannot be told", "take images that the model errs on"
        )
    return a_II + damp * mean * torch.eye(len(a_II), dtype=a_II.dtype, device=a_II.device)


def eliminate_groups(a_II: Tensor, m_II: Tensor, columns_GS: Tensor, sizes: Sequence[int]) -> Curve:
    """Remove groups greedily, at each step the cheapest by their own losses; a step's loss is that of all its groups.

    Args:
        a_II: damped A.
        m_II: W^T B W / tr F.
        columns_GS: the columns of each group.
        sizes: how many groups go at each step.
    """
    finv_II, m_II = torch.cholesky_inverse(torch.linalg.cholesky(a_II)), m_II.double().clone()
    gone_G = torch.zeros(len(columns_GS), dtype=torch.bool, device=a_II.device)
    steps, losses = [], []
    for size in sizes:
        score_G = _losses(_blocks(finv_II, columns_GS, gone_G), _blocks(m_II, columns_GS, gone_G))
        picked = score_G.masked_fill(gone_G, torch.inf).topk(size, largest=False).indices
        q_Q = columns_GS[picked].flatten()
        losses.append(float(_losses(finv_II[q_Q][:, q_Q][None], m_II[q_Q][:, q_Q][None])))
        finv_II, m_II = _without(finv_II, m_II, q_Q)
        gone_G[picked] = True
        steps.append(tuple(sorted(picked.tolist())))
    return Curve(tuple(steps), tuple(losses))


def compensated(w_OI: Tensor, a_II: Tensor, kept: Tensor) -> Tensor:
    """The columns ``kept`` of W after OBS has removed the others: ``W A_:K (A_KK)^-1`` [O, K].

    The same as updating group by group, since the minimum of a quadratic does not depend on the way there.
    """
    factor_KK = torch.linalg.cholesky(a_II[kept][:, kept])
    return torch.cholesky_solve((w_OI.double() @ a_II[:, kept]).T, factor_KK).T


def _blocks(matrix_II: Tensor, columns_GS: Tensor, gone_G: Tensor) -> Tensor:
    """The diagonal block of each group [G, S, S]; the identity where it is gone."""
    blocks_GSS = matrix_II[columns_GS[:, :, None], columns_GS[:, None, :]]
    eye_SS = torch.eye(columns_GS.shape[1], dtype=matrix_II.dtype, device=matrix_II.device)
    return torch.where(gone_G[:, None, None], eye_SS, blocks_GSS)


def _losses(finv_GSS: Tensor, m_GSS: Tensor) -> Tensor:
    """``1/2 tr(M_qq ([A^-1]_qq)^-1)`` of each group [G]."""
    return torch.linalg.solve(finv_GSS, m_GSS).diagonal(dim1=1, dim2=2).sum(1) / 2


def _without(finv_II: Tensor, m_II: Tensor, q_Q: Tensor) -> tuple[Tensor, Tensor]:
    """A^-1 and M after columns ``q`` are gone: ``W <- W - W_q R`` with ``R = ([A^-1]_qq)^-1 [A^-1]_q:``."""
    r_QI = torch.linalg.solve(finv_II[q_Q][:, q_Q], finv_II[q_Q])
    half_II = m_II[:, q_Q] @ r_QI
    m_II = m_II - half_II - half_II.T + r_QI.T @ (m_II[q_Q][:, q_Q] @ r_QI)
    return finv_II - finv_II[:, q_Q] @ r_QI, m_II
