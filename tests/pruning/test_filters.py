import pytest
import torch
from channel_cases import network
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.filters import FilterMagnitude
from ovit_deploy.pruning.method import apply


def masks_of(model: nn.Module, *names: str) -> dict[str, Tensor]:
    return {name: torch.ones_like(model.get_parameter(name), dtype=torch.bool) for name in names}


@pytest.mark.parametrize("axis", [0, 1])
def test_the_smallest_norms_go_whole_in_every_layer(axis: int) -> None:
    model, names = network("test_resnet"), ("layer1.0.conv2.weight", "fc.weight")
    pruned = FilterMagnitude(axis).prune(model, masks_of(model, *names), sparsity=0.3)
    for name in names:
        weight = model.get_parameter(name).detach()
        norms = weight.double().movedim(axis, 0).flatten(1).norm(dim=1)
        gone = set(norms.argsort()[: round(0.3 * len(norms))].tolist())
        rows = pruned.masks[name].movedim(axis, 0).flatten(1)
        assert {row for row in range(len(rows)) if not rows[row].any()} == gone
        assert rows.all(1).sum() == len(rows) - len(gone)
        assert torch.equal(pruned.weights[name], weight * pruned.masks[name])


def test_layers_of_a_group_share_their_zeros_by_the_sum_of_norms_and_keep_them() -> None:
    model, group = network("test_resnet"), ("layer1.0.conv1.weight", "layer1.0.conv2.weight")
    norms = sum(model.get_parameter(name).detach().double().flatten(1).norm(dim=1) for name in group)
    method, masks = FilterMagnitude(0, [group]), masks_of(model, *group)
    pruned = method.prune(model, masks, sparsity=0.25)
    gone = set(norms.argsort()[: len(norms) // 4].tolist())
    found = [{row for row, mask in enumerate(pruned.masks[name]) if not mask.any()} for name in group]
    assert found == [gone, gone]
    apply(model, pruned)
    with torch.no_grad():
        model.get_parameter(group[0]).mul_(torch.linspace(3, 0.1, len(norms))[:, None, None, None])
    later = method.prune(model, pruned.masks, sparsity=0.5).masks[group[0]]
    assert not later[sorted(gone)].any() and int(later.flatten(1).any(1).sum()) == len(norms) // 2


def test_groups_that_cannot_be_are_refused() -> None:
    model = network("test_resnet")
    with pytest.raises(PruningError, match="cannot share filters: layer1.0.conv1.weight has 32, fc.weight has 10"):
        names = ("layer1.0.conv1.weight", "fc.weight")
        FilterMagnitude(0, [names]).prune(model, masks_of(model, *names), sparsity=0.5)
    with pytest.raises(PruningError, match="fc.weight not among params"):
        FilterMagnitude(0, [["fc.weight"]]).prune(model, masks_of(model, "layer1.0.conv1.weight"), sparsity=0.5)
    with pytest.raises(PruningError, match="fc.bias has 0"):
        FilterMagnitude(1).prune(model, masks_of(model, "fc.bias"), sparsity=0.5)
