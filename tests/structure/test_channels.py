"""Channels of small networks of every make: what is removed answers as what is masked, and costs what was counted."""

import copy
import json
from functools import cache

import pytest
import torch
from channel_cases import NETWORKS, image_of, network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ovit_deploy.errors import ModelError
from ovit_deploy.flops import flops
from ovit_deploy.quantization import insert
from ovit_deploy.recipe.quantization import Quantization
from ovit_deploy.structure import Shapes, read_structure, rebuild
from ovit_deploy.structure.bill import bill_of
from ovit_deploy.structure.channels import Group, mask_channels, remove_channels, shapes_of
from ovit_deploy.structure.dependencies import groups_of

found = cache(lambda name: groups_of(network(name)))


def some_of(draw: st.DrawFn, groups: tuple[Group, ...]) -> dict[str, set[int]]:
    """Any channels of any groups, but one at least stays."""
    return {
        group.name: draw(st.sets(st.integers(0, group.count - 1), max_size=group.count - 1))
        for group in draw(st.lists(st.sampled_from(groups), unique=True))
    }


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_what_is_removed_answers_as_what_is_masked_and_costs_what_was_counted(name: str, data: st.DataObject) -> None:
    groups, masked, thin = found(name), network(name), network(name)
    gone = some_of(data.draw, groups)
    bills = {kind: bill_of(thin, groups, kind) for kind in ("parameters", "flops", "channels")}
    mask_channels(masked, groups, gone)
    remove_channels(thin, groups, gone)
    with torch.no_grad():
        torch.testing.assert_close(thin(image_of(name)), masked(image_of(name)), rtol=0, atol=1e-5)
    counts = {group: len(channels) for group, channels in gone.items()}
    assert bills["parameters"].of(counts) == sum(p.numel() for p in thin.parameters())
    assert bills["flops"].of(counts) == flops(thin, []).total // 2
    assert bills["channels"].of(counts) == sum(group.count for group in groups) - sum(counts.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fresh_network_is_brought_to_the_structure_that_json_tells(name: str) -> None:
    thin, fresh = network(name), network(name, seed=1)
    plan = remove_channels(thin, found(name), {group.name: range(group.count // 2) for group in found(name)})
    shapes = shapes_of(thin)
    text = json.dumps(Shapes({tensor: shapes[tensor] for tensor in plan}).as_dict())
    rebuild(fresh, read_structure(json.loads(text)))
    fresh.load_state_dict(thin.state_dict())
    torch.testing.assert_close(fresh(image_of(name)), thin(image_of(name)), rtol=0, atol=0)
    assert [str(layer) for layer in fresh.modules()] == [str(layer) for layer in thin.modules()]


def test_streams_of_batch_norms_can_be_cut_and_those_of_layer_norms_not() -> None:
    resnet = {group.name: [slice_.tensor for slice_ in group.consumers] for group in found("test_resnet")}
    assert set(resnet["layer2.0.conv2"]) == {"layer3.0.conv1.weight", "layer3.0.downsample.1.weight"}
    assert all(group.name.endswith("mlp.fc1") for group in found("test_convnext"))


def test_what_mixes_channels_is_left_whole() -> None:
    """Global response norms are no layer that the graph knows: trying finds them."""
    import timm

    overlay = {"input_size": (3, 32, 32)}
    sizes = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "num_classes": 3}
    model = timm.create_model("convnextv2_atto", pretrained_cfg_overlay=overlay, **sizes)
    with pytest.raises(ModelError, match="ConvNeXt: no channels can be removed"):
        groups_of(model)


def test_what_cannot_be_cut_is_refused_by_name() -> None:
    import timm

    with pytest.raises(ModelError, match="use !HeadWidthPruningModifier"):
        groups_of(timm.create_model("test_vit"))
    quantized = network("test_resnet")
    insert(quantized, Quantization())
    with pytest.raises(ModelError, match="the model is quantized"):
        groups_of(quantized)


class Twice(nn.Module):
    """One layer in two places, so that its channels are those of two sums."""

    pretrained_cfg: dict = {"input_size": (3, 8, 8)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.again(self.again(x).relu()).mean((2, 3)))


def test_a_layer_that_is_used_twice_is_cut_in_both_places_or_not_at_all() -> None:
    model = Twice().eval()
    groups = groups_of(model)
    assert [group.name for group in groups] == ["stem"]
    thin, masked = copy.deepcopy(model), copy.deepcopy(model)
    gone = {group.name: {0, 3} for group in groups}
    remove_channels(thin, groups, gone)
    mask_channels(masked, groups, gone)
    image = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(thin(image), masked(image), rtol=0, atol=1e-5)


@pytest.mark.parametrize("values", [{"shapes": {}}, {"shapes": {"a": [0, 1]}}, {"shapes": {"a": 3}}, {"shapes": []}])
def test_shapes_that_are_none_are_told(values: dict) -> None:
    with pytest.raises(ModelError, match="structure"):
        read_structure(values)


def test_shapes_of_another_model_are_refused() -> None:
    with pytest.raises(ModelError, match="more than the model"):
        rebuild(network("test_resnet"), Shapes({"conv1.0.weight": (99, 3, 3, 3)}))
    with pytest.raises(ModelError, match="more than the model"):
        rebuild(network("test_resnet"), Shapes({"nowhere": (1,)}))
