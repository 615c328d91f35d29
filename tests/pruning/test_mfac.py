import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_vit

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import MFAC, WoodFisher
from ovit_deploy.pruning.mfac import GradientVectors, inverse_factor, inverse_times, own_blocks


@pytest.mark.parametrize(("num_grads", "block_size"), [(1, 1), (5, 20), (20, 5), (12, 12)])
@pytest.mark.parametrize("damping", [1.0, 1e-6])
def test_the_inverse_is_that_of_the_damped_mean_of_outer_products(num_grads, block_size, damping):
    draw = torch.Generator().manual_seed(0)
    gradient_KMB = torch.randn(3, num_grads, block_size, generator=draw, dtype=torch.float64)
    fisher_KBB = gradient_KMB.mT @ gradient_KMB / num_grads + damping * torch.eye(block_size, dtype=torch.float64)
    vector_KB = torch.randn(3, block_size, generator=draw, dtype=torch.float64)
    factor_KMB, jitter_K = inverse_factor(gradient_KMB, damping)
    finv_KBB = torch.linalg.inv(fisher_KBB)
    assert (jitter_K == 0).all()
    own_KB11 = own_blocks(factor_KMB, 1, damping)
    torch.testing.assert_close(own_KB11[..., 0, 0], finv_KBB.diagonal(dim1=1, dim2=2), rtol=1e-6, atol=0)
    (whole_KBB,) = own_blocks(factor_KMB, block_size, damping).unbind(dim=1)
    torch.testing.assert_close(whole_KBB, finv_KBB, rtol=1e-6, atol=1e-9 / damping)
    expected_KB = (finv_KBB @ vector_KB[:, :, None]).squeeze(2)
    scale = float(expected_KB.abs().max())
    torch.testing.assert_close(inverse_times(factor_KMB, vector_KB, damping), expected_KB, rtol=1e-6, atol=1e-9 * scale)
    loss = GradientVectors(damping).loss(vector_KB, gradient_KMB)
    assert loss == pytest.approx(float((vector_KB * (fisher_KBB @ vector_KB[:, :, None]).squeeze(2)).sum() / 2))


def test_large_blocks_are_those_of_woodfisher_without_their_matrices():
    model = tiny_vit()
    masks = full_masks(model, ["blocks.0.mlp.fc1.weight", "blocks.1.mlp.fc2.weight"])
    settings = {"block_size": 256, "num_grads": 40, "damping": 1e-4, "memory_budget": 2**28}
    free, full = (
        method(**settings).prune(model, masks, sparsity=0.5, calibration=tiny_calibration())
        for method in (MFAC, WoodFisher)
    )
    assert free.details["fisher_bytes"] * 3 < full.details["fisher_bytes"]
    same = sum(int((free.masks[name] == full.masks[name]).sum()) for name in masks)
    assert same >= 0.999 * sum(mask.numel() for mask in masks.values())
    assert free.predicted_loss == pytest.approx(full.predicted_loss, rel=1e-2)


def test_no_damping_is_an_error():
    with pytest.raises(PruningError, match="M-FAC divides by it"):
        MFAC(damping=0.0)
