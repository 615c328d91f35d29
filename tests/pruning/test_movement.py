import pytest
import torch
from cases import full_masks, tiny_vit

from ovit_deploy.pruning.movement import Movement


def scores_of(model, draw: int = 0) -> dict[str, torch.Tensor]:
    seeded = torch.Generator().manual_seed(draw)
    return {name: torch.randn(mask.shape, generator=seeded) for name, mask in full_masks(model).items()}


def smallest(values: list[float], num: int) -> set[int]:
    return set(sorted(range(len(values)), key=lambda at: values[at])[:num])


@pytest.mark.parametrize("together", [False, True])
def test_the_smallest_scores_go_whatever_their_weights(together: bool) -> None:
    model = tiny_vit()
    masks, scores = full_masks(model), scores_of(model)
    pruned = Movement(scores, together).prune(model, masks, sparsity=0.4)
    sets = [list(masks)] if together else [[name] for name in masks]
    for names in sets:
        values = torch.cat([scores[name].flatten() for name in names]).tolist()
        gone = (~torch.cat([pruned.masks[name].flatten() for name in names])).nonzero().flatten().tolist()
        assert set(gone) == smallest(values, len(gone))
    zeros = sum(int((~mask).sum()) for mask in pruned.masks.values())
    assert zeros == round(0.4 * sum(mask.numel() for mask in masks.values()))


@pytest.mark.parametrize("together", [False, True])
def test_pruned_weights_stay_pruned_even_where_their_score_is_best(together: bool) -> None:
    model = tiny_vit()
    scores = scores_of(model)
    first = Movement(scores, together).prune(model, full_masks(model), sparsity=0.3)
    for name, weight in first.weights.items():
        model.get_parameter(name).data.copy_(weight)
        scores[name][~first.masks[name]] = 100
    second = Movement(scores, together).prune(model, first.masks, sparsity=0.6)
    assert all(not (mask & ~first.masks[name]).any() for name, mask in second.masks.items())


def test_patterns_are_kept_and_groups_go_by_the_sum_of_their_scores() -> None:
    model = tiny_vit()
    masks, scores = full_masks(model), scores_of(model)
    two_of_four = Movement(scores, pattern="2:4").prune(model, masks, sparsity=0.5)
    for name, mask in two_of_four.masks.items():
        kept = scores[name].view(-1, 4).masked_fill(~mask.view(-1, 4), torch.inf).min(dim=1).values
        gone = scores[name].view(-1, 4).masked_fill(mask.view(-1, 4), -torch.inf).max(dim=1).values
        assert (mask.view(-1, 4).sum(dim=1) == 2).all() and (kept > gone).all()
    blocks = Movement(scores, together=True, pattern="block4").prune(model, masks, sparsity=0.5)
    sums = torch.cat([scores[name].view(-1, 4).sum(dim=1) for name in masks])
    whole = torch.cat([mask.view(-1, 4).all(dim=1) for mask in blocks.masks.values()])
    assert (~whole).sum() * 2 == len(whole) and sums[whole].min() > sums[~whole].max()
