import oracles
import pytest
import torch
from cases import full_masks, images_and_labels, tiny_calibration, tiny_convnet, tiny_vit

from ovit_deploy.pruning import FastOViT, UniformMagnitude, apply, fast_ovit
from ovit_deploy.pruning.fast_ovit import shared_fishers
from ovit_deploy.pruning.fisher import Span

TINY = FastOViT(block_size=32, num_grads=40, columns=8)


def damped_fisher(model, name, block_size=32, damping=0.01):
    """The average of the blocks, sample by sample, with relative damping."""
    images, labels = images_and_labels(40)
    ones = torch.ones_like(model.get_parameter(name), dtype=torch.bool)
    fisher_KBB = oracles.fisher_blocks(model.eval(), name, ones, images, labels, block_size=block_size, damping=0)
    fisher_BB = fisher_KBB.mean(dim=0)
    return fisher_BB + damping * fisher_BB.diagonal().mean() * torch.eye(block_size)


def loss_of(model, pruned):
    """``1/2 sum_b d_b^T F d_b`` under the shared Fisher matrices."""
    loss = 0.0
    for name, weight in pruned.weights.items():
        change_KB = (weight - model.get_parameter(name).detach()).double().reshape(-1, 32)
        loss += torch.einsum("ki,ij,kj->", change_KB, damped_fisher(model, name), change_KB).item() / 2
    return loss


@pytest.mark.parametrize("work_bytes", [2**26, 1])
@pytest.mark.parametrize(
    ("model", "name", "block_size"),
    [(tiny_vit(), "blocks.0.attn.qkv.weight", 16), (tiny_convnet(), "grouped.weight", 54)],
)
def test_the_shared_fisher_is_the_average_of_the_blocks(model, name, block_size, work_bytes, monkeypatch):
    monkeypatch.setattr(fast_ovit, "WORK_BYTES", work_bytes)
    span = Span(name, 0, model.get_parameter(name).numel() // block_size, block_size)
    fishers, mean_loss = shared_fishers(model, [span], tiny_calibration(), 40)
    expected = damped_fisher(model, name, block_size, damping=0)
    torch.testing.assert_close(fishers[name], expected, rtol=1e-4, atol=1e-9)
    images, labels = images_and_labels(40)
    assert mean_loss == pytest.approx(torch.nn.functional.cross_entropy(model(images), labels).item(), rel=1e-5)


def test_a_layer_is_swept_as_the_loop_of_sparsegpt_does_it():
    model = tiny_vit()
    name = "blocks.1.mlp.fc2.weight"
    pruned = TINY.prune(model, full_masks(model, [name]), sparsity=0.5, calibration=tiny_calibration())
    w_KB = model.get_parameter(name).detach().reshape(-1, 32)
    weights_KB, kept_KB = oracles.sparsegpt(w_KB, damped_fisher(model, name), run=8, gone_per_run=len(w_KB) * 4)
    assert (pruned.masks[name].reshape(-1, 32) == kept_KB).float().mean() > 0.999  # Fisher in float32
    torch.testing.assert_close(pruned.weights[name].reshape(-1, 32).double(), weights_KB, rtol=1e-2, atol=1e-3)


def test_the_predicted_loss_is_the_quadratic_form_of_the_change():
    model = tiny_vit()
    pruned = TINY.prune(model, full_masks(model), sparsity=0.5, calibration=tiny_calibration())
    assert pruned.predicted_loss == pytest.approx(loss_of(model, pruned), rel=1e-3)


@pytest.mark.parametrize("columns", [8, 32])
def test_it_is_not_magnitude_pruning_and_predicts_a_lower_loss(columns):
    model = tiny_vit()
    masks, calibration = full_masks(model), tiny_calibration()
    method = FastOViT(block_size=32, num_grads=40, columns=columns)
    pruned = method.prune(model, masks, sparsity=0.6, calibration=calibration)
    by_magnitude = UniformMagnitude().prune(model, masks, sparsity=0.6)
    for name, mask in pruned.masks.items():
        assert (mask != by_magnitude.masks[name]).float().mean() > 0.02
        assert not torch.equal(pruned.weights[name][mask], model.get_parameter(name)[mask])
    assert pruned.predicted_loss < 0.6 * loss_of(model, by_magnitude)


def test_a_second_prune_holds_every_zero_through_the_sweep():
    model, calibration = tiny_vit(), tiny_calibration()
    apply(model, TINY.prune(model, full_masks(model), sparsity=0.4, calibration=calibration))
    masks = {name: model.get_parameter(name) != 0 for name in full_masks(model)}
    pruned = TINY.prune(model, masks, sparsity=0.7, calibration=calibration)
    assert pruned.predicted_loss == pytest.approx(loss_of(model, pruned), rel=1e-3)
    assert all((masks[name] >= mask).all() for name, mask in pruned.masks.items())


def test_blocks_hold_whole_groups_of_a_pattern():
    model = tiny_vit()
    method = FastOViT(block_size=2, num_grads=40, pattern="2:4")
    pruned = method.prune(model, full_masks(model), sparsity=0.5, calibration=tiny_calibration())
    assert pruned.details["fisher_bytes"] == 8 * 8 * 4**2
    assert all((mask.reshape(-1, 4).sum(dim=1) == 2).all() for mask in pruned.masks.values())


def test_memory_does_not_grow_with_the_layer():
    model = tiny_vit()
    pruned = TINY.prune(model, full_masks(model), sparsity=0.5, calibration=tiny_calibration())
    assert pruned.details["fisher_bytes"] == 8 * 8 * 32**2
