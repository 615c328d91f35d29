import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structure_cases import MAKES, kept_of, small_vit
from torch.utils.flop_counter import FlopCounterMode

from ovit_deploy.errors import ModelError
from ovit_deploy.structure import macs, parameters, remove, structure_of


def counted(model: torch.nn.Module) -> int:
    """By torch, which counts two operations for a multiply-accumulate."""
    for block in model.blocks:
        block.attn.fused_attn = False
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 16, 16))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("make", MAKES)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_costs_are_what_the_thinned_model_has(make: str, data: st.DataObject) -> None:
    model = small_vit(make)
    before = parameters(model), macs(model)
    assert before[1].of(structure_of(model)) == counted(model)
    remove(model, data.draw(kept_of(model)))
    for costs in (before, (parameters(model), macs(model))):
        assert costs[0].of(structure_of(model)) == sum(p.numel() for p in model.parameters())
        assert costs[1].of(structure_of(model)) == counted(model)


def test_work_that_cannot_be_counted_is_refused() -> None:
    model = small_vit(global_pool="map", class_token=False)
    with pytest.raises(ModelError, match="cannot count"):
        macs(model)
    assert parameters(model).of(structure_of(model)) == sum(p.numel() for p in model.parameters())
