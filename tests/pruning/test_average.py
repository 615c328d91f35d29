import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_vit
from safetensors.torch import load_file, save_file

from ovit_deploy.errors import PruningError
from ovit_deploy.kernels import triangle
from ovit_deploy.pruning import FisherAverage, OViT, apply

NAME = "blocks.0.mlp.fc1.weight"


def random_fishers(count=3):
    draw = torch.Generator().manual_seed(0)
    g_SKNB = torch.randn(count, 2, 20, 6, generator=draw, dtype=torch.float64)
    return list(g_SKNB.mT @ g_SKNB / 20)


def test_the_average_is_the_formula_over_the_weights_that_are_left():
    average, fishers = FisherAverage(0.75), random_fishers()
    active = [torch.ones(2, 6, dtype=torch.bool) for _ in fishers]
    active[1][:, 0], active[2][:, :3] = False, False
    expected = None
    for fisher_KBB, active_KB in zip(fishers, active, strict=True):
        alive_KBB = active_KB[:, :, None] & active_KB[:, None, :]
        fisher_KBB = fisher_KBB * alive_KBB
        expected = fisher_KBB if expected is None else 0.75 * expected * alive_KBB + 0.25 * fisher_KBB
        found_KH = triangle.folded(fisher_KBB)
        average.update("weight", found_KH, active_KB)
        torch.testing.assert_close(triangle.whole(found_KH, 6), expected)
        torch.testing.assert_close(average.blocks["weight"], found_KH)


def two_prunings(average, between=lambda average: average, **changes):
    model, calibration = tiny_vit(), tiny_calibration()
    masks = full_masks(model, [NAME])
    for sparsity in (0.3, 0.6):
        method = OViT(32, 40, 1e-4, memory_budget=2**26, average=average, **changes)
        pruned = method.prune(model, masks, sparsity=sparsity, calibration=calibration)
        apply(model, pruned)
        masks, average = pruned.masks, between(average)
    return pruned


def test_what_was_seen_before_matters_to_the_next_pruning():
    plain, averaged = two_prunings(None), two_prunings(FisherAverage(0.5))
    assert not torch.equal(plain.weights[NAME], averaged.weights[NAME])


def test_without_decay_only_the_last_matrix_counts():
    assert torch.equal(two_prunings(None).weights[NAME], two_prunings(FisherAverage(0.0)).weights[NAME])


def test_an_average_can_be_saved_and_taken_up_again(tmp_path):
    def through_a_file(average):
        save_file(average.blocks, tmp_path / "average.safetensors")
        return FisherAverage(average.decay, load_file(tmp_path / "average.safetensors"))

    straight, resumed = two_prunings(FisherAverage(0.5)), two_prunings(FisherAverage(0.5), through_a_file)
    assert torch.equal(straight.weights[NAME], resumed.weights[NAME])


def test_an_average_that_does_not_fit_in_memory_is_an_error():
    model = tiny_vit()
    method = OViT(32, 40, 1e-4, memory_budget=600_000, average=FisherAverage(0.5))
    with pytest.raises(PruningError, match="beside their moving average"):
        method.prune(model, full_masks(model), sparsity=0.5, calibration=tiny_calibration())


def test_an_average_of_other_blocks_is_an_error():
    average = FisherAverage(0.5)
    average.update("weight", torch.zeros(2, triangle.num_held(6)), torch.ones(2, 6, dtype=torch.bool))
    with pytest.raises(PruningError, match="keep the block size"):
        average.update("weight", torch.zeros(1, triangle.num_held(12)), torch.ones(1, 12, dtype=torch.bool))


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_that_means_nothing_is_an_error(decay):
    with pytest.raises(PruningError, match="decay"):
        FisherAverage(decay)
