"""The pruning step in its plain form, structured as the code that the paper released.

One backward for every image; the inverse Fisher blocks of all layers at once, each updated by a rank-1 Woodbury step a
gradient::

    F^-1 <- F^-1 - (F^-1 g) (F^-1 g)^T / (m + g^T F^-1 g)         from F^-1 = I / damping

then batched elimination of a layer that rewrites every inverse at every step and stores the weights after each of them
(the traces, as large as the inverses once more), one threshold over all cumulative losses, and the weights read from
the traces. Nothing that depends on the method differs from :class:`ovit_deploy.pruning.OViT` with the cumulative rule.

Source: "oViT", arXiv 2210.09223, Algorithm 1; the structure is that of github.com/IST-DASLab/CAP (all inverses and
traces in memory, all blocks of a layer in parallel), the code is not.

Shape suffixes: K Fisher blocks, B weights in a block, Z = B + 1 numbers of zeros.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovit_deploy.pruning.fisher import block_size_for
from ovit_deploy.pruning.gradients import frozen
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report, num_zeros, target_weights
from ovit_deploy.pruning.samples import take
from ovit_deploy.pruning.second_order import required


@dataclass(frozen=True)
class PlainOViT:
    """oViT without any of our shortcuts, for models that are dense: a yardstick, not for use.

    Args:
        block_size: B; each tensor takes the smallest divisor of its size that is at least this.
        num_grads: m, images whose gradients are taken.
        damping: Added to the diagonal of the Fisher matrices.
    """

    block_size: int
    num_grads: int
    damping: float

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """See :class:`ovit_deploy.pruning.method.Method`."""
        assert all(bool(mask.all()) for mask in masks.values()), "the plain form starts from dense models"
        calibration = required(calibration, "oViT", self.num_grads)
        weights = target_weights(model, masks)
        inverses = self.inverse_fishers(model, weights, calibration)
        losses, traces = {}, {}
        for name, finv_KBB in inverses.items():
            w_KB = weights[name].reshape(len(finv_KBB), -1)
            losses[name], traces[name] = eliminate_with_traces(w_KB, finv_KBB)
        return pick(weights, losses, traces, num_zeros(masks, sparsity))

    def inverse_fishers(
        self, model: nn.Module, weights: dict[str, Tensor], calibration: Calibration
    ) -> dict[str, Tensor]:
        """Inverse Fisher blocks [K, B, B] of every layer, by m rank-1 updates."""
        inverses = {name: self.start(weight) for name, weight in weights.items()}
        for gradients in single_gradients(model, list(weights), calibration, self.num_grads):
            for name, gradient in gradients.items():
                woodbury(inverses[name], gradient.reshape(len(inverses[name]), -1), self.num_grads)
        return inverses

    def start(self, weight: Tensor) -> Tensor:
        """``I / damping`` for every block of a weight."""
        block = block_size_for(weight.numel(), self.block_size)
        return (torch.eye(block, dtype=weight.dtype) / self.damping).repeat(weight.numel() // block, 1, 1)


def single_gradients(
    model: nn.Module, names: list[str], calibration: Calibration, num_grads: int
) -> Iterator[dict[str, Tensor]]:
    """The gradients of one image after the other, each by a backward of its own."""
    with frozen(model):
        parameters = {name: model.get_parameter(name).requires_grad_() for name in names}
        for images, labels in take(calibration.batches(), num_grads):
            for image, label in zip(images.split(1), labels.split(1), strict=True):
                loss = functional.cross_entropy(model(image), label)
                found = torch.autograd.grad(loss, list(parameters.values()))
                yield dict(zip(parameters, found, strict=True))


def woodbury(finv_KBB: Tensor, g_KB: Tensor, num_grads: int) -> None:
    """One rank-1 update, in place."""
    step_KB = (finv_KBB @ g_KB[:, :, None]).squeeze(2)
    step_KB /= (num_grads + (g_KB * step_KB).sum(dim=1, keepdim=True)).sqrt()
    finv_KBB.baddbmm_(step_KB[:, :, None], step_KB[:, None, :], alpha=-1)


def eliminate_with_traces(w_KB: Tensor, finv_KBB: Tensor) -> tuple[Tensor, Tensor]:
    """Greedy elimination of all blocks at once; F^-1 is used up.

    Returns:
        The cumulative loss at which each weight goes [K, B], and the weights with 0, 1, ... B zeros [Z, K, B].
    """
    u_KB, blocks_K = w_KB.clone(), torch.arange(len(w_KB))
    gone_KB = torch.zeros_like(w_KB, dtype=torch.bool)
    loss_KB, total_K = torch.zeros_like(w_KB), torch.zeros(len(w_KB), dtype=w_KB.dtype)
    trace_ZKB = torch.zeros(w_KB.shape[1] + 1, *w_KB.shape, dtype=w_KB.dtype)
    trace_ZKB[0] = w_KB
    for turn in range(1, len(trace_ZKB)):
        diagonal_KB = finv_KBB.diagonal(dim1=1, dim2=2)
        least_K, p_K = (u_KB.square() / (2 * diagonal_KB)).masked_fill(gone_KB, torch.inf).min(dim=1)
        total_K += least_K
        loss_KB[blocks_K, p_K] = total_K
        row_KB, pivot_K = finv_KBB[blocks_K, p_K], diagonal_KB[blocks_K, p_K]
        u_KB -= row_KB * (u_KB[blocks_K, p_K] / pivot_K)[:, None]
        gone_KB[blocks_K, p_K] = True
        u_KB.masked_fill_(gone_KB, 0)
        trace_ZKB[turn] = u_KB
        row_KB /= pivot_K.sqrt()[:, None]
        finv_KBB.baddbmm_(row_KB[:, :, None], row_KB[:, None, :], alpha=-1)
    return loss_KB, trace_ZKB


def pick(weights: dict[str, Tensor], losses: dict[str, Tensor], traces: dict[str, Tensor], zeros: int) -> Pruned:
    """One threshold over the cumulative losses of all layers; the weights of that many zeros from the traces."""
    flat = torch.cat([loss_KB.flatten() for loss_KB in losses.values()])
    threshold = flat.kthvalue(zeros).values if zeros else flat.new_tensor(-torch.inf)
    masks, found, total = {}, {}, 0.0
    for name, loss_KB in losses.items():
        gone_KB = loss_KB <= threshold
        count_K = gone_KB.sum(dim=1)
        masks[name] = ~gone_KB.view_as(weights[name])
        found[name] = traces[name][count_K, torch.arange(len(loss_KB))].view_as(weights[name])
        total += float(loss_KB.masked_fill(~gone_KB, 0).amax(dim=1).sum())
    return Pruned(masks, found, total)
