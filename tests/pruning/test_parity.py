"""oViT as the paper's code orders it: rank-1 inverse updates, stored traces, one threshold on the loss so far."""

import oracles
import pytest
import torch
from cases import full_masks, images_and_labels, tiny_calibration, tiny_vit

from ovit_deploy.pruning import OViT

NAMES = ["blocks.0.attn.proj.weight", "blocks.1.attn.proj.weight"]
BLOCK, NUM_GRADS, DAMPING = 32, 24, 1e-5


def blocks_of(model, name):
    """Weights [K, B], and gradients [K, M, B]."""
    samples = zip(*images_and_labels(NUM_GRADS, dtype=torch.float64), strict=True)
    gradients = [oracles.sample_gradient(model, name, *sample).reshape(-1, BLOCK) for sample in samples]
    return model.get_parameter(name).detach().reshape(-1, BLOCK), torch.stack(gradients, dim=1)


@pytest.mark.parametrize("sparsity", [0.3, 0.75])
def test_masks_and_weights_of_the_cumulative_rule_are_those_of_the_papers_order(sparsity):
    model = tiny_vit().double().eval()
    traced = [
        oracles.greedy_traces(w_B, oracles.woodbury_inverse(gradient_MB, DAMPING))
        for name in NAMES
        for w_B, gradient_MB in zip(*blocks_of(model, name), strict=True)
    ]
    losses = torch.stack([loss_B for loss_B, _ in traced])
    gone = torch.zeros(losses.numel(), dtype=torch.bool)
    gone[losses.flatten().argsort()[: round(sparsity * losses.numel())]] = True
    gone = gone.view_as(losses)
    weights = torch.stack([traces[int(mask.sum())] for (_, traces), mask in zip(traced, gone, strict=True)])

    method = OViT(BLOCK, NUM_GRADS, DAMPING, "cumulative", memory_budget=2**26)
    calibration = tiny_calibration(NUM_GRADS, 7, torch.float64)
    pruned = method.prune(model, full_masks(model, NAMES), sparsity=sparsity, calibration=calibration)
    kept = torch.cat([pruned.masks[name].reshape(-1, BLOCK) for name in NAMES])
    found = torch.cat([pruned.weights[name].reshape(-1, BLOCK) for name in NAMES])
    assert torch.equal(kept, ~gone)
    torch.testing.assert_close(found, weights, rtol=1e-5, atol=1e-7)
