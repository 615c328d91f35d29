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


def input_hessian(layer: nn.Module, inputs: list[Tensor]) -> Tensor:
    """``1/T sum_t x_t x_t^T`` of a linear layer or an ungrouped convolution, one input vector at a time."""
    if isinstance(layer, nn.Conv2d):
        inputs = [F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).mT for x in inputs]
    vectors = torch.cat([x.flatten(0, -2) for x in inputs]).double()
    hessian_II = torch.zeros(vectors.shape[1], vectors.shape[1], dtype=torch.float64)
    for x_I in vectors:
        hessian_II += torch.outer(x_I, x_I)
    return hessian_II / len(vectors)


def sparsegpt(
    w_OI: Tensor,
    hessian_II: Tensor,
    *,
    run: int,
    gone_per_run: int = 0,
    pattern: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """The OBS loop of SparseGPT, with a fresh inverse for each column: new weights, and what is kept."""
    w_OI, num_columns = w_OI.double().clone(), w_OI.shape[1]
    gone_OI = torch.zeros_like(w_OI, dtype=torch.bool)
    pivots = [torch.linalg.inv(hessian_II[j:, j:])[0, 0] for j in range(num_columns)]
    for j in range(num_columns):
        if j % run == 0:
            score_OS = w_OI[:, j : j + run].square() / torch.stack(pivots[j : j + run])
            if pattern is None:
                cut = score_OS.flatten().sort().values[gone_per_run - 1]
                gone_OI[:, j : j + run] = score_OS <= cut
            else:
                for row, score_S in zip(gone_OI, score_OS, strict=True):
                    row[j + score_S.argsort()[: pattern[1] - pattern[0]]] = True
        for row in gone_OI[:, j].nonzero().flatten():
            remove_and_compensate_right(w_OI[row], hessian_II, j)
    return w_OI, ~gone_OI


def remove_and_compensate_right(w_I: Tensor, hessian_II: Tensor, j: int) -> None:
    """The OBS step for weight j among the weights from j on, in place."""
    inverse = torch.linalg.inv(hessian_II[j:, j:])
    w_I[j:] -= w_I[j] / inverse[0, 0] * inverse[:, 0]
    w_I[j] = 0


def woodbury_inverse(gradient_MB: Tensor, damping: float) -> Tensor:
    """``(damping I + 1/m sum_i g_i g_i^T)^-1``, a gradient at a time by Sherman and Morrison's formula."""
    inverse_BB = torch.eye(gradient_MB.shape[1], dtype=torch.float64) / damping
    for g_B in gradient_MB:
        pull_B = inverse_BB @ g_B
        inverse_BB -= torch.outer(pull_B, pull_B) / (len(gradient_MB) + g_B @ pull_B)
    return inverse_BB


def greedy_traces(w_B: Tensor, inverse_BB: Tensor) -> tuple[Tensor, Tensor]:
    """OBS one weight at a time: the loss [B] up to and with each weight, and the weights after each step [B + 1, B]."""
    u_B, a_BB, active, spent = w_B.clone(), inverse_BB.clone(), list(range(len(w_B))), 0.0
    loss_B, traces = torch.zeros_like(w_B), [w_B.clone()]
    while active:
        p = min(active, key=lambda q: float(u_B[q] ** 2 / a_BB[q, q]))
        spent += float(u_B[p] ** 2 / a_BB[p, p]) / 2
        loss_B[p] = spent
        u_B -= u_B[p] / a_BB[p, p] * a_BB[:, p]
        u_B[p] = 0
        a_BB -= torch.outer(a_BB[:, p], a_BB[p]) / a_BB[p, p]
        active.remove(p)
        traces.append(u_B.clone())
    return loss_B, torch.stack(traces)


def fake_quantize(x: Tensor, scale: float, zero_point: int, q_min: int, q_max: int) -> Tensor:
    """Rounding to integers and back, by its definition, value by value in float64."""
    integers = [min(max(round(value / scale) + zero_point, q_min), q_max) for value in x.double().flatten().tolist()]
    return torch.tensor([(q - zero_point) * scale for q in integers], dtype=torch.float64).reshape(x.shape)


def rounded_greedily(u_B: Tensor, fisher_BB: Tensor, kept: list[int], scale_B: Tensor, highest: int) -> Tensor:
    """OBQ with a fresh inverse at each step: what is beyond the range first, else the cheapest."""
    u_B, left = u_B.clone(), list(kept)
    while left:
        inverse = torch.linalg.inv(fisher_BB[left][:, left])
        q = {p: float(min(max(round(float(u_B[p] / scale_B[p])), -highest), highest) * scale_B[p]) for p in left}
        beyond = [p for p in left if abs(q[p] - u_B[p]) > 0.5000001 * scale_B[p]]
        costs = {p: float((q[p] - u_B[p]) ** 2 / inverse[i, i]) for i, p in enumerate(left)}
        p = beyond[0] if beyond else min(left, key=costs.__getitem__)
        i = left.index(p)
        u_B[left] += (q[p] - u_B[p]) / inverse[i, i] * inverse[:, i]
        u_B[p] = q[p]
        left.remove(p)
    return u_B
