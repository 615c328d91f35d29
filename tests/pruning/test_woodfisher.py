import oracles
import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_vit
from torch import nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import MFAC, OViT, WoodFisher, apply

NAMES = ["blocks.0.mlp.fc1.weight", "blocks.1.attn.proj.weight"]
SETTINGS = {"block_size": 32, "num_grads": 40, "damping": 1e-4, "memory_budget": 2**26}
METHODS = [WoodFisher(**SETTINGS), MFAC(**SETTINGS)]


def double_vit() -> nn.Module:
    return tiny_vit().double().eval()


def calibration():
    return tiny_calibration(dtype=torch.float64)


def fisher_blocks(model, masks):
    images, labels = (torch.cat(part) for part in zip(*calibration().batches(), strict=True))
    return {
        name: oracles.fisher_blocks(model, name, mask, images, labels, block_size=32, damping=1e-4)
        for name, mask in masks.items()
    }


def blocks_of(model, name):
    return model.get_parameter(name).detach().reshape(-1, 32)


@pytest.fixture(params=METHODS, ids=lambda method: type(method).__name__)
def method(request):
    return request.param


def test_the_smallest_saliencies_of_all_targets_go(method):
    model = double_vit()
    masks = full_masks(model, NAMES)
    pruned = method.prune(model, masks, sparsity=0.4, calibration=calibration())
    saliency, kept = [], []
    for name, fisher_KBB in fisher_blocks(model, masks).items():
        diag_KB = torch.linalg.inv(fisher_KBB).diagonal(dim1=1, dim2=2)
        saliency.append((blocks_of(model, name).square() / diag_KB).flatten())
        kept.append(pruned.masks[name].flatten())
    assert torch.cat(saliency)[~torch.cat(kept)].max() <= torch.cat(saliency)[torch.cat(kept)].min()


def test_updates_are_the_sum_of_single_weight_updates(method):
    model = double_vit()
    masks = full_masks(model, NAMES)
    pruned = method.prune(model, masks, sparsity=0.4, calibration=calibration())
    loss = 0.0
    for name, fisher_KBB in fisher_blocks(model, masks).items():
        kept_KB, found_KB = (tensor.reshape(-1, 32) for tensor in (pruned.masks[name], pruned.weights[name]))
        expected_KB = blocks_of(model, name).clone()
        for b, w_B in enumerate(blocks_of(model, name)):
            finv_BB = torch.linalg.inv(fisher_KBB[b])
            for p in (~kept_KB[b]).nonzero().flatten().tolist():
                expected_KB[b] -= w_B[p] / finv_BB[p, p] * finv_BB[:, p]
        expected_KB[~kept_KB] = 0
        torch.testing.assert_close(found_KB, expected_KB, rtol=1e-6, atol=1e-9)
        change_KB = expected_KB - blocks_of(model, name)
        loss += torch.einsum("ki,kij,kj->", change_KB, fisher_KBB, change_KB).item() / 2
    assert pruned.predicted_loss == pytest.approx(loss)


def test_one_weight_alone_goes_as_in_ovit(method):
    model = double_vit()
    masks = full_masks(model, NAMES[:1])
    alone = 1 / masks[NAMES[0]].numel()
    found, exact = (
        one.prune(model, masks, sparsity=alone, calibration=calibration()) for one in (method, OViT(**SETTINGS))
    )
    assert torch.equal(found.masks[NAMES[0]], exact.masks[NAMES[0]])
    torch.testing.assert_close(found.weights[NAMES[0]], exact.weights[NAMES[0]])


def test_many_weights_cost_more_than_in_ovit(method):
    model = double_vit()
    masks = full_masks(model)
    found, exact = (
        one.prune(model, masks, sparsity=0.6, calibration=calibration()) for one in (method, OViT(**SETTINGS))
    )
    assert exact.predicted_loss < found.predicted_loss


def test_earlier_zeros_take_no_part(method):
    model = double_vit()
    first = method.prune(model, full_masks(model, NAMES), sparsity=0.3, calibration=calibration())
    apply(model, first)
    second = method.prune(model, first.masks, sparsity=0.5, calibration=calibration())
    name = NAMES[0]
    fisher_KBB = fisher_blocks(model, first.masks)[name]
    active_KB, kept_KB, found_KB = (
        tensor.reshape(-1, 32) for tensor in (first.masks[name], second.masks[name], second.weights[name])
    )
    for b in range(0, len(found_KB), 17):
        at = active_KB[b].nonzero().flatten()
        finv_BB = torch.linalg.inv(fisher_KBB[b][at[:, None], at])
        w_B = blocks_of(model, name)[b][at]
        pull_B = (w_B / finv_BB.diagonal()).masked_fill(kept_KB[b][at], 0)
        expected_B = (w_B - finv_BB @ pull_B).masked_fill(~kept_KB[b][at], 0)
        torch.testing.assert_close(found_KB[b][at], expected_B, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("budget", [600_000, 1_600_000])
def test_a_small_budget_gives_what_one_pass_gives(method, budget):
    model = tiny_vit()
    masks = full_masks(model)
    whole = method.prune(model, masks, sparsity=0.5, calibration=tiny_calibration())
    small = type(method)(**(vars(method) | {"memory_budget": budget}))
    parts = small.prune(model, masks, sparsity=0.5, calibration=tiny_calibration())
    assert whole.details["passes"] == 1
    assert parts.details["passes"] == 2 * parts.details["groups"] > 2
    for name in masks:
        assert torch.equal(parts.masks[name], whole.masks[name])
        torch.testing.assert_close(parts.weights[name], whole.weights[name])


def test_a_budget_below_one_block_is_an_error(method):
    model = tiny_vit()
    small = type(method)(**(vars(method) | {"memory_budget": 1000}))
    with pytest.raises(PruningError, match="too few to work on a Fisher block"):
        small.prune(model, full_masks(model), sparsity=0.5, calibration=tiny_calibration())
