import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_convnet, tiny_vit
from hypothesis import given, settings
from hypothesis import strategies as st

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.rigl import SparseStart, exchange, exchange_one, layer_zeros, loss_gradients


def naive_exchange(weight: list[float], kept: list[bool], gradient: list[float], fraction: float) -> list[bool]:
    """Algorithm 1 of arXiv 1911.11134, one weight after the other."""
    num = int(fraction * sum(kept))
    by_size = sorted((p for p in range(len(kept)) if kept[p]), key=lambda p: abs(weight[p]))
    staying = set(by_size[num:])
    candidates = sorted((p for p in range(len(kept)) if p not in staying), key=lambda p: -abs(gradient[p]))
    return [p in staying | set(candidates[:num]) for p in range(len(kept))]


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 60), seed=st.integers(0, 10_000), kept=st.floats(0, 1), fraction=st.floats(0, 1))
def test_an_exchange_is_the_papers(size: int, seed: int, kept: float, fraction: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    mask = torch.rand(size, generator=draw) < kept
    weight = torch.randn(size, generator=draw, dtype=torch.float64) * mask
    gradient = torch.randn(size, generator=draw, dtype=torch.float64)
    new = exchange_one(weight, mask, gradient, fraction)
    assert new.tolist() == naive_exchange(weight.tolist(), mask.tolist(), gradient.tolist(), fraction)
    assert new.sum() == mask.sum()


def test_weights_move_between_layers_only_together() -> None:
    weights = {"a": torch.tensor([[1.0, 2.0, 0.0]]), "b": torch.tensor([[3.0, 0.0, 4.0]])}
    masks = {name: weight != 0 for name, weight in weights.items()}
    gradients = {"a": torch.tensor([[0.0, 0.0, 5.0]]), "b": torch.tensor([[0.0, 9.0, 0.0]])}
    apart = exchange(weights, masks, gradients, fraction=0.5, together=False)
    assert {name: mask.tolist() for name, mask in apart.items()} == {
        "a": [[False, True, True]],
        "b": [[False, True, True]],
    }
    together = exchange(weights, masks, gradients, fraction=0.25, together=True)
    assert {name: mask.tolist() for name, mask in together.items()} == {
        "a": [[False, True, False]],
        "b": [[True, True, True]],
    }


@pytest.mark.parametrize("strategy", ["erdos_renyi_kernel", "erdos_renyi", "uniform"])
def test_a_start_has_the_densities_of_its_strategy_and_keeps_the_largest(strategy) -> None:
    model = tiny_convnet()
    masks = full_masks(model, ["stem.weight", "grouped.weight", "depthwise.weight", "head.weight"])
    pruned = SparseStart(strategy).prune(model, masks, sparsity=0.6)
    zeros = {name: int((~mask).sum()) for name, mask in pruned.masks.items()}
    assert sum(zeros.values()) == round(0.6 * sum(mask.numel() for mask in masks.values()))
    constants = []
    for name, mask in pruned.masks.items():
        sizes = mask.shape if strategy == "erdos_renyi_kernel" else mask.shape[:2]
        product = torch.tensor(sizes).prod()
        ratio = 1.0 if strategy == "uniform" else sum(sizes) / float(product)
        if zeros[name]:
            constants.append((1 - zeros[name] / mask.numel()) / ratio)
        weight = model.get_parameter(name).detach().abs()
        assert not zeros[name] or weight[mask].min() >= weight[~mask].max()
    assert len(constants) > 1 and constants == pytest.approx([constants[0]] * len(constants), rel=0.1)


def test_zeros_that_are_there_already_count() -> None:
    masks = {"a.weight": torch.zeros(4, 4, dtype=torch.bool), "b.weight": torch.ones(4, 4, dtype=torch.bool)}
    assert layer_zeros(masks, 20, "uniform") == {"a.weight": 16, "b.weight": 4}
    with pytest.raises(PruningError, match="unknown sparsity strategy"):
        SparseStart("erk")  # type: ignore[arg-type]


def test_gradients_of_pruned_weights_are_those_of_the_mean_loss() -> None:
    model = tiny_vit().double()
    model.train()
    (name, *_) = full_masks(model)
    weight = model.get_parameter(name)
    weight.data[::2] = 0
    calibration = tiny_calibration(40, dtype=torch.float64)
    (found,) = loss_gradients(model, [name], calibration).values()
    images, labels = (torch.cat(parts) for parts in zip(*calibration.batches(), strict=True))
    model.eval()
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(images), labels), [weight])
    torch.testing.assert_close(found, expected)
    assert found[::2].abs().max() > 0 and weight.grad is None
