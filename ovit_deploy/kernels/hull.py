"""Lower convex hulls of cumulative loss curves, compiled for the CPU.

Shape suffixes: K Fisher blocks, B steps of a curve.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor


def hull_slopes(marginal_KB: Tensor) -> Tensor:
    """Slopes of the lower convex hull of ``C(k) = marginal_1 + ... + marginal_k``, for each step of each curve.

    Pool adjacent violators (Ayer et al. 1955): a step cheaper than the run before it is merged with it, and a run's
    slope is its mean. The result never falls along a curve. A curve ends at its first infinite step, and slopes are
    infinite from there.
    """
    slope_KB = torch.full(marginal_KB.shape, torch.inf, dtype=torch.float64)
    pool(marginal_KB.detach().cpu().double().contiguous().numpy(), slope_KB.numpy())
    return slope_KB.to(marginal_KB.device)


@njit(cache=True, nogil=True)
def pool(marginal_KB: np.ndarray, slope_KB: np.ndarray) -> None:
    """Pool each curve, into ``slope_KB``."""
    num_curves, num_steps = marginal_KB.shape
    mean, size = np.empty(num_steps), np.empty(num_steps, np.int64)
    for b in range(num_curves):
        top = -1
        for k in range(num_steps):
            if marginal_KB[b, k] == np.inf:
                break
            top += 1
            mean[top], size[top] = marginal_KB[b, k], 1
            while top > 0 and mean[top] <= mean[top - 1]:
                merged = size[top - 1] + size[top]
                mean[top - 1] += (mean[top] - mean[top - 1]) * size[top] / merged
                size[top - 1] = merged
                top -= 1
        k = 0
        for run in range(top + 1):
            slope_KB[b, k : k + size[run]] = mean[run]
            k += size[run]
