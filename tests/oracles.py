"""Naive references: the formula as it is written, one block and one sample at a time, in float64."""

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def joint_loss(w_B: Tensor, fisher_BB: Tensor, gone: list[int]) -> float:
    """``1/2 w_S^T (F^-1_SS)^-1 w_S``: the loss of removing S with the best values for the rest."""
    finv_BB = torch.linalg.inv(fisher_BB)
    return float(w_B[gone] @ torch.linalg.solve(finv_BB[gone][:, gone], w_B[gone])) / 2


def best_rest(w_B: Tensor, fisher_BB: Tensor, gone: list[int]) -> Tensor:
    """``u_P = w_P - F^-1_PS (F^-1_SS)^-1 w_S``, zeros in S."""
    finv_BB = torch.linalg.inv(fisher_BB)
    u_B = w_B - finv_BB[:, gone] @ torch.linalg.solve(finv_BB[gone][:, gone], w_B[gone])
    u_B[gone] = 0
    return u_B


def optimal_loss(w_B: Tensor, fisher_BB: Tensor, count: int) -> float:
    """The least loss of removing ``count`` weights, by trying every set."""
    return min(joint_loss(w_B, fisher_BB, list(gone)) for gone in combinations(range(len(w_B)), count))


def sample_gradient(model: nn.Module, name: str, image: Tensor, label: Tensor) -> Tensor:
    """One sample's gradient of the cross-entropy, by autograd."""
    loss = F.cross_entropy(model(image[None]), label[None])
    return torch.autograd.grad(loss, model.get_parameter(name))[0]


def fisher_blocks(
    model: nn.Module, name: str, mask: Tensor, images: Tensor, labels: Tensor, *, block_size: int, damping: float
) -> Tensor:
    """``damping I + 1/m sum_i g_ib g_ib^T``, sample by sample."""
    fisher_KBB = torch.zeros(mask.numel() // block_size, block_size, block_size, dtype=torch.float64)
    for image, label in zip(images, labels, strict=True):
        gradient_KB = (sample_gradient(model, name, image, label) * mask).double().reshape(-1, block_size)
        fisher_KBB += gradient_KB[:, :, None] * gradient_KB[:, None, :]
    return fisher_KBB / len(images) + damping * torch.eye(block_size, dtype=torch.float64)
