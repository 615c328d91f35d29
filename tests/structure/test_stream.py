"""A narrower embedding answers as the whole one whose LayerNorms and layers pass over the channels that are gone."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structure_cases import MAKES, small_vit
from torch import Tensor, nn

from ovit_deploy.errors import ModelError
from ovit_deploy.flops import flops
from ovit_deploy.structure import Kept, Structure, everything, macs, parameters, rebuild, remove, structure_of
from ovit_deploy.structure.bill import bill_of
from ovit_deploy.structure.channels import mask_channels, remove_channels
from ovit_deploy.structure.stream import stream_of

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class MaskedNorm(nn.Module):
    """A LayerNorm over the channels that stay."""

    def __init__(self, norm: nn.LayerNorm, kept: Tensor) -> None:
        super().__init__()
        self.norm, self.kept = norm, kept

    def forward(self, x: Tensor) -> Tensor:
        inside = x[..., self.kept]
        normed = (inside - inside.mean(-1, keepdim=True)) / (
            inside.var(-1, unbiased=False, keepdim=True) + self.norm.eps
        ).sqrt()
        weight, bias = self.norm.weight[self.kept], self.norm.bias[self.kept]
        return torch.zeros_like(x).index_copy(-1, self.kept, normed * weight + bias)


def masked(model: nn.Module, gone: set[int]) -> nn.Module:
    model, stream = copy.deepcopy(model), stream_of(model)
    mask_channels(model, [stream], {stream.name: gone})
    kept = torch.tensor([channel for channel in range(stream.count) if channel not in gone])
    for path, norm in list(model.named_modules()):
        if isinstance(norm, nn.LayerNorm) and norm.weight.shape == (stream.count,):
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, MaskedNorm(norm, kept))
    return model


@pytest.mark.parametrize("make", MAKES)
@settings(max_examples=4, deadline=None)
@given(gone=st.sets(st.integers(0, 23), min_size=1, max_size=22))
def test_a_narrower_model_answers_as_the_masked_one_and_costs_what_was_counted(make: str, gone: set[int]) -> None:
    thin, whole = small_vit(make), small_vit(make)
    thin.pretrained_cfg = {**thin.pretrained_cfg, "input_size": (3, 16, 16)}  # as models.build tells it
    stream = stream_of(thin)
    bills = {kind: bill_of(thin, [stream], kind) for kind in ("parameters", "flops")}
    remove_channels(thin, [stream], {stream.name: gone})
    with torch.no_grad():
        torch.testing.assert_close(thin(IMAGES), masked(whole, gone)(IMAGES), rtol=0, atol=1e-5)
    left, structure = {stream.name: len(gone)}, structure_of(thin)
    assert structure.embed_dim == 24 - len(gone)
    total = sum(p.numel() for p in thin.parameters())
    assert bills["parameters"].of(left) == parameters(thin).of(structure) == total
    assert bills["flops"].of(left) == macs(thin).of(structure) == flops(thin, []).total // 2


def test_heads_and_neurons_go_too_and_a_fresh_model_is_brought_to_all_of_it() -> None:
    thin, fresh = small_vit(), small_vit(seed=5)
    stream = stream_of(thin)
    remove_channels(thin, [stream], {stream.name: range(8)})
    remove(thin, Kept({0: (2,), 2: (0, 1)}, {0: (3, 4), 2: (7,)}))
    told = structure_of(thin).as_dict()
    assert told["embed_dim"] == 16
    before = {name: tuple(p.shape) for name, p in fresh.named_parameters()}
    plan = rebuild(fresh, Structure.from_dict(told))
    fresh.load_state_dict(thin.state_dict())
    torch.testing.assert_close(fresh(IMAGES), thin(IMAGES), rtol=0, atol=0)
    for name, parameter in fresh.named_parameters():
        shape = list(before[name])
        for dim, index in plan.get(name) or ():
            shape[dim] = len(index)
        assert tuple(shape) == parameter.shape


def test_what_cannot_be_is_refused() -> None:
    whole = structure_of(small_vit()).as_dict()
    assert "embed_dim" not in whole and everything(small_vit()).heads
    with pytest.raises(ModelError, match="more than the model"):
        rebuild(small_vit(), Structure.from_dict(whole | {"embed_dim": 99}))
    with pytest.raises(ModelError, match="its width is none"):
        Structure.from_dict(whole | {"embed_dim": 0})
    pooled = small_vit()
    pooled.attn_pool = nn.Identity()
    with pytest.raises(ModelError, match="its stem or its pooling"):
        stream_of(pooled)
