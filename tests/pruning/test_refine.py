import pytest
import torch
from cases import fisher_problem, full_masks, tiny_calibration, tiny_vit

from ovit_deploy.errors import PruningError
from ovit_deploy.kernels import swap
from ovit_deploy.pruning import OViT
from ovit_deploy.pruning.patterns import parse_pattern
from ovit_deploy.pruning.refine import losses, refine


def ovit(**changes):
    return OViT(**({"block_size": 32, "num_grads": 40, "damping": 1e-4, "memory_budget": 2**26} | changes))


@pytest.mark.parametrize(("pattern", "sparsity"), [("unstructured", 0.6), ("2:4", 0.5)])
@pytest.mark.parametrize("budget", [2**26, 600_000])
def test_swaps_lower_the_predicted_loss_at_the_same_budget(pattern, sparsity, budget):
    model, calibration = tiny_vit(), tiny_calibration()
    masks = full_masks(model)
    plain = ovit(pattern=pattern).prune(model, masks, sparsity=sparsity, calibration=calibration)
    swapped = ovit(pattern=pattern, refine=True, memory_budget=budget).prune(
        model, masks, sparsity=sparsity, calibration=calibration
    )
    assert swapped.predicted_loss < plain.predicted_loss
    assert swapped.details["swaps"] > 0 == plain.details["swaps"]
    for name, mask in swapped.masks.items():
        assert torch.equal(mask.reshape(-1, 32).sum(1), plain.masks[name].reshape(-1, 32).sum(1))
        assert (swapped.weights[name][~mask] == 0).all()
        if pattern == "2:4":
            assert (mask.reshape(-1, 4).sum(1) == 2).all()


def test_earlier_zeros_are_not_revived():
    model, calibration = tiny_vit(), tiny_calibration()
    masks = full_masks(model)
    pruned = ovit(refine=True, num_recomputations=2).prune(model, masks, sparsity=0.6, calibration=calibration)
    first = ovit(refine=True).prune(model, masks, sparsity=0.3, calibration=calibration)
    assert all((first.masks[name] >= mask).all() for name, mask in pruned.masks.items())


def test_a_block_that_would_get_worse_stays_as_it_is(monkeypatch):
    w_KB, fisher_KBB = fisher_problem(2, 8)
    kept_KB = (w_KB.abs() >= w_KB.abs().median(dim=1, keepdim=True).values) & (torch.arange(8) > 0)
    good_KB = swap.swapped(w_KB, fisher_KBB, torch.ones_like(kept_KB), kept_KB, group=8)
    monkeypatch.setattr(swap, "swapped", lambda *args, **kwargs: kept_KB.clone())
    found_KB = refine(w_KB, fisher_KBB, torch.ones_like(kept_KB), good_KB, parse_pattern("unstructured"))
    assert torch.equal(found_KB, good_KB)
    assert (losses(w_KB, fisher_KBB, good_KB) <= losses(w_KB, fisher_KBB, kept_KB)).all()


def test_whole_groups_are_not_swapped():
    with pytest.raises(PruningError, match="refine swaps single weights, block4 keeps groups whole"):
        ovit(pattern="block4", refine=True)
