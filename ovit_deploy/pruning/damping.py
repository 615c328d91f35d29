"""How much is added to the diagonal of a Fisher block: c times

    absolute  1, as in the papers
    relative  the mean diagonal of the block, over its active weights
    robust    s_b, how far the block's entries are off because they are means of m gradients

With the mean F of m matrices ``g_i g_i^T`` on P active weights, the squared error of F is estimated by that of a mean::

    e_b^2 = 1/(m - 1) (1/m sum_i |g_i|^4 - |F|_F^2)      estimates E |F - F_true|_F^2
    s_b   = e_b / sqrt(P)                                root mean square of the error's eigenvalues

Why on the diagonal: a change of the weights that is best against the worst error within a ball has

    max over |E|_F <= r of 1/2 d^T (F + E) d = 1/2 d^T (F + r I) d

so damping by r is robust against errors of size r (the argument of robust optimisation, as in robust least squares,
El Ghaoui & Lebret, SIAM J. Matrix Anal. Appl. 18(4), 1997). e_b^2 is the noise term of the shrinkage of Ledoit & Wolf,
J. Multivariate Anal. 88(2), 2004. "A Robust Optimization Guided Pruning Framework for Vision and Large Language Models"
(RobOP, ICML 2026) has the same aim; this is not its algorithm.

Shape suffixes: N samples, K Fisher blocks, B weights in a block, H numbers held of its matrix.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from ovit_deploy.errors import PruningError
from ovit_deploy.kernels import triangle

Damping = Literal["absolute", "relative", "robust"]
# The least that a relative kind adds: a block whose gradients are all zero has no scale of its own.
LEAST = 1e-12


def check_damping(kind: str) -> None:
    """Refuse a kind that is not known."""
    if kind not in get_args(Damping):
        raise PruningError(f"unknown damping {kind!r}", f"choose one of {', '.join(get_args(Damping))}")


def damp(held_KH: Tensor, active_KB: Tensor, damping: float, kind: Damping, error_K: Tensor) -> None:
    """Add to the diagonals, in place; all of a diagonal gets the same.

    Args:
        held_KH: Undamped, zero at inactive weights; held as kernels/triangle says.
        active_KB: Weights that are not pruned.
        damping: c.
        kind: Of what it is a multiple.
        error_K: e_b; looked at only if robust.
    """
    size = active_KB.shape[1]
    if kind == "absolute":
        triangle.add_to_diagonal(held_KH, damping, size)
        return
    num_active_K = active_KB.to(held_KH.device).sum(dim=1).clamp(min=1)
    if kind == "relative":
        scale_K = triangle.diagonal(held_KH, size).sum(dim=1) / num_active_K
    else:
        scale_K = error_K / num_active_K.sqrt()
    triangle.add_to_diagonal(held_KH, (damping * scale_K).clamp(min=LEAST), size)


def sampling_error(square_K: Tensor, fourth_K: Tensor, num_grads: int) -> Tensor:
    """e_b of each block [K] in float64, from ``|F|_F^2`` undamped and ``sum_i |g_i|^4``."""
    return ((fourth_K / num_grads - square_K).clamp(min=0) / max(num_grads - 1, 1)).sqrt()


def fourth_powers(gradient_KNB: Tensor) -> Tensor:
    """``sum_i |g_i|^4`` of each block [K], in float64."""
    return torch.linalg.vector_norm(gradient_KNB, dim=2, dtype=torch.float64).pow(4).sum(dim=1)
