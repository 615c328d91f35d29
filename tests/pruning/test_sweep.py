import dataclasses

import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_vit

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import MFAC, Calibration, GlobalMagnitude, GradientWeight, OViT, Wanda, WoodFisher
from ovit_deploy.pruning.sweep import Sweep

METHODS = [
    OViT(block_size=32, num_grads=40),
    OViT(block_size=32, num_grads=40, refine=True, allocation="cumulative"),
    OViT(block_size=32, num_grads=40, pattern="block4"),
    OViT(block_size=32, num_grads=40, num_recomputations=2),
    WoodFisher(block_size=32, num_grads=40, damping=1e-4),
    MFAC(block_size=64, num_grads=40, damping=1e-4),
    GradientWeight(num_grads=40),
    Wanda(num_samples=40),
    GlobalMagnitude(),
]


def counting(calibration: Calibration) -> tuple[Calibration, list[int]]:
    """The same stream, and how often it was opened."""
    opened: list[int] = []

    def batches():
        opened.append(1)
        return calibration.batches()

    return Calibration(batches, calibration.num_samples), opened


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_point_of_a_sweep_is_what_the_method_answers_alone(method) -> None:
    model, calibration = tiny_vit(), tiny_calibration()
    masks, sweep = full_masks(model), Sweep(method)
    for sparsity in (0.75, 0.5):  # in any order
        found = sweep.prune(model, masks, sparsity=sparsity, calibration=calibration)
        alone = method.prune(model, masks, sparsity=sparsity, calibration=calibration)
        assert found.predicted_loss == alone.predicted_loss
        for name in masks:
            assert torch.equal(found.masks[name], alone.masks[name])
            assert torch.equal(found.weights[name], alone.weights[name])


@pytest.mark.parametrize("method", [method for method in METHODS if Sweep(method).shares], ids=str)
def test_one_pass_over_the_gradients_serves_every_sparsity(method) -> None:
    model = tiny_vit()
    calibration, opened = counting(tiny_calibration())
    sweep = Sweep(method)
    sweep.prepare(model, full_masks(model), calibration=calibration)
    before = len(opened)
    for sparsity in (0.5, 0.75, 0.9):
        sweep.prune(model, full_masks(model), sparsity=sparsity, calibration=calibration)
    assert len(opened) == before == 2  # the check of the gradients, and the gradients


def test_a_sweep_of_several_groups_of_blocks_takes_them_again_for_each_sparsity() -> None:
    model, calibration = tiny_vit(), tiny_calibration()
    small = dataclasses.replace(METHODS[0], memory_budget=2_000_000)
    sweep = Sweep(small)
    sweep.prepare(model, full_masks(model), calibration=calibration)
    found = sweep.prune(model, full_masks(model), sparsity=0.75, calibration=calibration)
    alone = small.prune(model, full_masks(model), sparsity=0.75, calibration=calibration)
    assert found.details["groups"] > 1
    assert all(torch.equal(found.weights[name], alone.weights[name]) for name in found.weights)


def test_other_weights_than_those_it_was_prepared_at_are_never_pruned() -> None:
    model, calibration = tiny_vit(), tiny_calibration()
    sweep = Sweep(METHODS[0])
    sweep.prepare(model, full_masks(model), calibration=calibration)
    with pytest.raises(AssertionError, match="other weights"):
        sweep.prune(tiny_vit(seed=1), full_masks(model), sparsity=0.5, calibration=calibration)


def test_a_sweep_refuses_what_its_method_refuses() -> None:
    model = tiny_vit()
    with pytest.raises(PruningError, match="needs calibration images"):
        Sweep(METHODS[0]).prune(model, full_masks(model), sparsity=0.5)
    with pytest.raises(PruningError, match="not in"):
        Sweep(METHODS[0]).prune(model, full_masks(model), sparsity=1.5, calibration=tiny_calibration())
