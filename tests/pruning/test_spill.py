import gc
from dataclasses import replace

import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_vit

from ovit_deploy.errors import PruningError
from ovit_deploy.kernels import triangle
from ovit_deploy.pruning import OViT, WoodFisher, spill
from ovit_deploy.pruning.allocation import allocate
from ovit_deploy.pruning.streaming import compensate_all, eliminate_all

TINY = OViT(block_size=32, num_grads=40, damping=1e-4, memory_budget=750_000)


def opened_calibration():
    """A calibration stream that counts its passes, the one that checks gradients included."""
    plain, passes = tiny_calibration(), []

    def batches():
        passes.append(None)
        return plain.batches()

    return replace(plain, batches=batches), passes


@pytest.mark.parametrize("method", [TINY, WoodFisher(32, 40, 1e-4, 750_000)])
def test_spilled_blocks_give_what_two_passes_give_in_half_of_them(tmp_path, method):
    model = tiny_vit()
    masks = full_masks(model)
    found = {}
    for spilling in (None, tmp_path):
        calibration, passes = opened_calibration()
        found[spilling] = replace(method, spill=spilling).prune(model, masks, sparsity=0.6, calibration=calibration)
        details = found[spilling].details
        assert len(passes) == 1 + details["passes"]
        assert details["groups"] > 2
        assert details["passes"] == details["groups"] * (2 if spilling is None else 1)
    twice, once = found.values()
    assert once.details["spilled_bytes"] == once.details["fisher_bytes"] > 0
    assert all(torch.equal(once.masks[name], twice.masks[name]) for name in masks)
    assert all(torch.equal(once.weights[name], twice.weights[name]) for name in masks)
    assert list(tmp_path.iterdir()) == []


def test_one_spill_serves_every_sparsity_and_goes_away_with_its_solution(tmp_path):
    model = tiny_vit()
    masks = full_masks(model)
    calibration, passes = opened_calibration()
    roomy, problem = (
        replace(TINY, memory_budget=2**26),
        replace(TINY, spill=tmp_path).problem(model, masks, calibration),
    )
    solution = eliminate_all(problem)
    held = [path.stat().st_size for path in tmp_path.rglob("*.npy")]
    assert sum(held) >= 4 * triangle.num_held(32) * sum(mask.numel() // 32 for mask in masks.values())
    for sparsity in (0.3, 0.8):
        counts = allocate(solution.curves, round(sparsity * sum(mask.numel() for mask in masks.values())))
        settled = compensate_all(problem, solution, counts)
        alone = roomy.prune(model, masks, sparsity=sparsity, calibration=tiny_calibration())
        for name in masks:
            torch.testing.assert_close(settled.weights[name], alone.weights[name])
    assert len(passes) == solution.passes == len(solution.groups)
    del solution
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_files_go_away_when_a_later_group_fails(tmp_path):
    model = tiny_vit()
    counted = iter(range(1000))

    def runs_dry():
        return tiny_calibration(40 if next(counted) < 2 else 8).batches()

    calibration = replace(tiny_calibration(), batches=runs_dry)
    with pytest.raises(PruningError, match="calibration has only 8"):
        replace(TINY, spill=tmp_path).prune(model, full_masks(model), sparsity=0.5, calibration=calibration)
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_what_fits_in_memory_is_not_spilled(tmp_path):
    model = tiny_vit()
    method = replace(TINY, memory_budget=2**26, spill=tmp_path / "nowhere")
    assert method.prune(model, full_masks(model), sparsity=0.5, calibration=tiny_calibration()).details["passes"] == 1


def test_a_disk_that_is_too_small_is_an_error_before_anything_is_done(tmp_path):
    with pytest.raises(PruningError, match=r"take 1073741824\.0 GiB"):
        spill.Spilled(tmp_path, 2**60)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(PruningError, match="cannot be written there"):
        spill.Spilled(tmp_path / "nowhere", 10)
