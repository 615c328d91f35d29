import random

import pytest
import torch
from cases import full_masks, tiny_vit
from hypothesis import given
from hypothesis import strategies as st

from ovit_deploy.pruning import SparseMLMagnitude
from ovit_deploy.pruning.sparseml_magnitude import largest


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0, 1))
def test_the_smallest_go_in_the_asked_number(values: list[int], sparsity: float) -> None:
    score = torch.tensor(values, dtype=torch.float32)
    kept = largest(score, sparsity)
    assert int((~kept).sum()) == (round(sparsity * len(values)) if sparsity > 0 else 0)
    if kept.any() and not kept.all():
        assert score[~kept].max() <= score[kept].min()


def test_of_equals_the_last_go() -> None:
    assert largest(torch.tensor([3.0, 1, 2, 2, 2, 0]), 0.5).tolist() == [True, False, True, True, False, False]


def test_of_too_many_zeros_some_are_drawn() -> None:
    order = list(range(6))
    random.Random(42).shuffle(order)
    kept = largest(torch.tensor([0.0, 0, 0, 0, 0, 0, 5, 6]), 0.25)
    assert sorted((~kept).nonzero().flatten().tolist()) == sorted(order[:2])


@pytest.mark.parametrize(("pattern", "unit"), [("unstructured", 1), ("block4", 4), ("2:4", 1)])
@pytest.mark.parametrize("together", [False, True])
def test_each_target_is_rounded_by_itself(pattern: str, unit: int, together: bool) -> None:
    model = tiny_vit()
    masks = full_masks(model)
    sparsity = 0.5 if pattern == "2:4" else 0.333
    pruned = SparseMLMagnitude(pattern, together).prune(model, masks, sparsity=sparsity)
    sizes = {name: mask.numel() for name, mask in masks.items()}
    zeros = {name: int((~mask).sum()) for name, mask in pruned.masks.items()}
    if together:
        assert sum(zeros.values()) == round(sparsity * sum(sizes.values()) / unit) * unit
    else:
        assert zeros == {name: round(sparsity * size / unit) * unit for name, size in sizes.items()}
    for name, mask in pruned.masks.items():
        assert torch.equal(pruned.weights[name], model.get_parameter(name).detach() * mask)


def test_blocks_go_by_their_mean() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 1))
    model[0].weight.data = torch.tensor([[3.0, 0, 0, 0, 1, 1, 1, 1.1]])  # norms 3 > 2.05, means 0.75 < 1.03
    pruned = SparseMLMagnitude("block4").prune(model, {"0.weight": torch.ones(1, 8, dtype=torch.bool)}, sparsity=0.5)
    assert pruned.masks["0.weight"].tolist() == [[False] * 4 + [True] * 4]
