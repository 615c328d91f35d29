import oracles
import pytest
import torch
from cases import full_masks, images_and_labels, tiny_calibration, tiny_vit

from ovit_deploy.errors import PruningError
from ovit_deploy.kernels import triangle
from ovit_deploy.pruning import OViT, WoodFisher
from ovit_deploy.pruning.damping import LEAST, damp, sampling_error
from ovit_deploy.pruning.fisher import Span, fishers

NAME, BLOCK, NUM_GRADS = "blocks.0.mlp.fc2.weight", 32, 12


def found(kind, mask, damping=0.3):
    model, span = tiny_vit().double().eval(), Span(NAME, 0, 128, BLOCK)
    calibration = tiny_calibration(NUM_GRADS, 5, torch.float64)
    asked = {"num_grads": NUM_GRADS, "damping": damping, "work_bytes": 100_000, "damping_kind": kind}
    return triangle.whole(fishers(model, [span], {NAME: mask}, calibration, **asked).blocks[span], BLOCK)


def gradients(mask):
    model = tiny_vit().double().eval()
    samples = zip(*images_and_labels(NUM_GRADS, dtype=torch.float64), strict=True)
    return torch.stack([(oracles.sample_gradient(model, NAME, *s) * mask).reshape(-1, BLOCK) for s in samples], dim=1)


@pytest.mark.parametrize("kept", [1.0, 0.6])
@pytest.mark.parametrize("kind", ["absolute", "relative", "robust"])
def test_what_is_added_to_the_diagonal_is_the_formula_block_by_block(kind, kept):
    mask = torch.rand(32, 128, generator=torch.Generator().manual_seed(0)) < kept
    gradient_KNB, fisher_KBB = gradients(mask), found(kind, mask)
    for b, g_NB in enumerate(gradient_KNB):
        outer_NBB = g_NB[:, :, None] * g_NB[:, None, :]
        mean_BB = outer_NBB.mean(dim=0)
        num_active = int(mask.reshape(-1, BLOCK)[b].sum())
        scale = {
            "absolute": 1.0,
            "relative": mean_BB.trace() / num_active,
            # the variance of every entry, over the number of samples, summed over the block
            "robust": (outer_NBB.var(dim=0).sum() / NUM_GRADS).sqrt() / num_active**0.5,
        }[kind]
        torch.testing.assert_close(fisher_KBB[b], mean_BB + 0.3 * scale * torch.eye(BLOCK, dtype=torch.float64))


def test_the_error_is_that_of_a_mean_of_so_many_outer_products():
    draw = torch.Generator().manual_seed(0)
    spread = torch.linspace(0.2, 2, 6, dtype=torch.float64)
    g_RNB = torch.randn(4000, 10, 6, generator=draw, dtype=torch.float64) * spread
    fisher_RBB = g_RNB.mT @ g_RNB / 10
    error_R = sampling_error(fisher_RBB.square().sum((1, 2)), g_RNB.norm(dim=2).pow(4).sum(dim=1), 10)
    missed_R = fisher_RBB - torch.diag(spread.square())
    assert error_R.square().mean() == pytest.approx(float(missed_R.square().sum((1, 2)).mean()), rel=0.05)


def test_gradients_that_are_all_alike_have_no_error():
    g_B = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fourth = g_B.norm().pow(4)
    square = torch.outer(g_B, g_B).square().sum()
    assert float(sampling_error(square, 7 * fourth, 7)) < 1e-7 * float(square.sqrt())


@pytest.mark.parametrize("kind", ["relative", "robust"])
def test_a_dead_block_can_still_be_inverted(kind):
    dead_KH, active_KB = torch.zeros(1, triangle.num_held(4)), torch.ones(1, 4, dtype=torch.bool)
    damp(dead_KH, active_KB, 0.01, kind, torch.zeros(1))
    torch.testing.assert_close(triangle.whole(dead_KH, 4)[0], LEAST * torch.eye(4))


@pytest.mark.parametrize("method", [OViT, WoodFisher])
def test_methods_with_a_fisher_matrix_take_each_kind(method):
    model, calibration = tiny_vit(), tiny_calibration()
    masks = full_masks(model, [NAME])
    kinds = {
        kind: method(BLOCK, 40, damping=0.1, memory_budget=2**26, damping_kind=kind).prune(
            model, masks, sparsity=0.5, calibration=calibration
        )
        for kind in ("absolute", "relative", "robust")
    }
    assert len({tuple(pruned.masks[NAME].flatten().tolist()) for pruned in kinds.values()}) == 3


def test_an_unknown_kind_is_an_error():
    with pytest.raises(PruningError, match="unknown damping 'noise'"):
        OViT(damping_kind="noise")
