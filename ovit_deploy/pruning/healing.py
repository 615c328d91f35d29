"""Layer-wise healing: kept weights are refitted so that each pruned layer's outputs are those of the layer before.

With W the weights of a layer before a pruning, V after it and x_t what the layer is fed in the pruned model, healing
lowers

    E(V) = mean_t |(V - W) x_t|^2 = tr((V - W) H (V - W)^T),   H = 1/T sum_t x_t x_t^T

over the kept weights of V. It is least squares in each output row on its own support: H_SS v_S = (H w)_S. All rows go
through conjugate gradients together (Hestenes and Stiefel, 1952), preconditioned by the diagonal of H and begun at the
pruner's own weights, so E (with H a little damped) never rises, no H_SS is factored, and a few dozen products with H
are the whole cost: 2 * iterations * O * I^2 flop for a layer of O outputs and I inputs.

Layers are refitted independently, from one pass over the images through the pruned model.

Shape suffixes: G groups of a convolution, O outputs of a group, I inputs of a group.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovit_deploy.pruning.hessian import damped, images_for, input_hessians, output_error
from ovit_deploy.pruning.layerwise import as_matrix
from ovit_deploy.pruning.method import Calibration, Masks, Report

# Conjugate gradients stop here; the damping bounds the condition of H.
ITERATIONS = 50
DAMPING = 1e-4


@dataclass(frozen=True)
class Healed:
    """Refitted weights, and ``sum_t |(V - W) x_t|^2 / sum_t |W x_t|^2`` of each layer before and after."""

    weights: dict[str, Tensor]
    errors_before: dict[str, float]
    errors_after: dict[str, float]


def heal(
    model: nn.Module,
    before: Mapping[str, Tensor],
    masks: Masks,
    *,
    calibration: Calibration,
    memory_budget: int | None = None,
    report: Report = lambda _: None,
) -> Healed:
    """Refit the kept weights of every target.

    Args:
        model: The pruned model; left as it was found.
        before: Weights of the targets before the pruning.
        masks: The targets, and which of their weights are kept.
        calibration: All of its images are looked at.
        memory_budget: Bytes, or None for half of the free memory.
        report: Told of each pass over the images.

    Raises:
        PruningError: A target is no weight of ``nn.Linear`` or ``nn.Conv2d``, or does not run.
    """
    images = images_for("healing", calibration, calibration.num_samples)
    healed = Healed({}, {}, {})
    hessians = input_hessians(model, list(masks), images, memory_budget=memory_budget, copies=2, report=report)
    for name, hessian_GII in hessians:
        pruned = model.get_parameter(name).detach()
        w_GOI, v_GOI, kept_GOI = (as_matrix(t.contiguous(), hessian_GII) for t in (before[name], pruned, masks[name]))
        fitted_GOI = refit(w_GOI.double(), v_GOI.double(), kept_GOI, damped(hessian_GII, DAMPING))
        healed.errors_before[name] = output_error(v_GOI - w_GOI, w_GOI, hessian_GII)
        healed.errors_after[name] = output_error(fitted_GOI - w_GOI, w_GOI, hessian_GII)
        healed.weights[name] = fitted_GOI.view(pruned.shape).to(pruned.dtype)
    return healed


def refit(w_GOI: Tensor, v_GOI: Tensor, kept_GOI: Tensor, hessian_GII: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Conjugate gradients on ``tr((V - W) H (V - W)^T)`` over the kept entries of V, from ``v_GOI``; float64."""
    diagonal_G1I = hessian_GII.diagonal(dim1=1, dim2=2)[:, None, :]
    fitted_GOI = v_GOI * kept_GOI
    residual_GOI = ((w_GOI - fitted_GOI) @ hessian_GII) * kept_GOI
    direction_GOI = scaled_GOI = residual_GOI / diagonal_G1I
    power_GO1 = (residual_GOI * scaled_GOI).sum(dim=2, keepdim=True)
    for _ in range(iterations):
        image_GOI = (direction_GOI @ hessian_GII) * kept_GOI
        curvature_GO1 = (direction_GOI * image_GOI).sum(dim=2, keepdim=True)
        moving_GO1 = curvature_GO1 > 0  # rows that have arrived stay where they are
        length_GO1 = torch.where(moving_GO1, power_GO1 / curvature_GO1.masked_fill(~moving_GO1, 1), 0)
        fitted_GOI = fitted_GOI + length_GO1 * direction_GOI
        residual_GOI = residual_GOI - length_GO1 * image_GOI
        scaled_GOI = residual_GOI / diagonal_G1I
        next_GO1 = (residual_GOI * scaled_GOI).sum(dim=2, keepdim=True)
        direction_GOI = scaled_GOI + next_GO1 / power_GO1.clamp(min=torch.finfo(power_GO1.dtype).tiny) * direction_GOI
        power_GO1 = next_GO1
    return fitted_GOI
