import torch
from cases import full_masks, tiny_calibration, tiny_vit

from ovit_deploy.bench.plain_pruner import PlainOViT, eliminate_with_traces, woodbury
from ovit_deploy.kernels.eliminate import eliminate
from ovit_deploy.pruning import OViT


def test_the_plain_form_finds_what_the_pruner_finds() -> None:
    model = tiny_vit().double().eval()
    masks, calibration = full_masks(model), tiny_calibration(20, 8, torch.float64)
    plain = PlainOViT(32, 20, 1e-4).prune(model, masks, sparsity=0.6, calibration=calibration)
    ours = OViT(32, 20, 1e-4, allocation="cumulative").prune(model, masks, sparsity=0.6, calibration=calibration)
    assert sum(int((~mask).sum()) for mask in plain.masks.values()) == round(0.6 * 24576)
    for name, mask in ours.masks.items():
        assert torch.equal(plain.masks[name], mask)
        torch.testing.assert_close(plain.weights[name], ours.weights[name])
    torch.testing.assert_close(plain.predicted_loss, ours.predicted_loss, rtol=1e-5, atol=0)


def test_rank_one_updates_give_the_inverse() -> None:
    g_MKB = torch.randn(7, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    finv_KBB = torch.eye(5, dtype=torch.float64).repeat(3, 1, 1) / 0.1
    for g_KB in g_MKB:
        woodbury(finv_KBB, g_KB, 7)
    fisher_KBB = torch.einsum("mki,mkj->kij", g_MKB, g_MKB) / 7 + 0.1 * torch.eye(5)
    torch.testing.assert_close(finv_KBB, fisher_KBB.inverse())


def test_traces_hold_the_weights_after_every_step() -> None:
    draw = torch.Generator().manual_seed(0)
    w_KB = torch.randn(2, 6, dtype=torch.float64, generator=draw)
    root_KBB = torch.randn(2, 6, 6, dtype=torch.float64, generator=draw)
    finv_KBB = root_KBB @ root_KBB.mT + 0.1 * torch.eye(6)
    _, trace_ZKB = eliminate_with_traces(w_KB, finv_KBB.clone())
    active_KB = torch.ones(2, 6, dtype=torch.bool)
    for zeros in range(7):
        found = eliminate(w_KB, finv_KBB, active_KB, torch.full((2,), zeros))
        torch.testing.assert_close(trace_ZKB[zeros], found.weights_KB)
