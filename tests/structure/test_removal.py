import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structure_cases import MAKES, kept_of, masked, small_vit
from torch import nn

from ovit_deploy.errors import ModelError
from ovit_deploy.quantization import insert
from ovit_deploy.recipe.quantization import Quantization
from ovit_deploy.structure import Kept, Structure, cut, everything, remove, shrink, structure_of

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
VITS = {make: small_vit(make) for make in MAKES}


@pytest.mark.parametrize("make", MAKES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_what_is_removed_answers_as_what_is_masked(make: str, data: st.DataObject) -> None:
    zeroed, thin = copy.deepcopy(VITS[make]), copy.deepcopy(VITS[make])
    kept = data.draw(kept_of(thin))
    masked(zeroed, kept)
    remove(thin, kept)
    with torch.no_grad():
        torch.testing.assert_close(thin(IMAGES), zeroed(IMAGES), rtol=0, atol=1e-5)
    assert structure_of(thin) == Structure.from_dict(
        {
            "blocks": [
                {"number": n, "heads": len(kept.heads[n]), "width": len(kept.neurons[n])} for n in sorted(kept.heads)
            ]
        }
    )


@pytest.mark.parametrize("make", MAKES)
@settings(max_examples=6, deadline=None)
@given(heads=st.integers(1, 4), head_dim=st.sampled_from([4, 8]), ratio=st.integers(1, 3), data=st.data())
def test_so_it_is_in_networks_of_any_shape(
    make: str, heads: int, head_dim: int, ratio: int, data: st.DataObject
) -> None:
    depth = data.draw(st.integers(1, 3))
    thin = small_vit(make, embed_dim=heads * head_dim, num_heads=heads, depth=depth, mlp_ratio=ratio).double()
    zeroed, kept = copy.deepcopy(thin), data.draw(kept_of(thin))
    masked(zeroed, kept)
    remove(thin, kept)
    with torch.no_grad():
        torch.testing.assert_close(thin(IMAGES.double()), zeroed(IMAGES.double()), rtol=0, atol=1e-5)


def test_the_plan_of_a_removal_cuts_copies_as_it_cut_the_parameters() -> None:
    model = small_vit()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    plan = remove(model, Kept({0: (0, 2), 2: (1,)}, {0: (1, 5, 6), 2: (0,)}))
    assert {name for name, how in plan.items() if how is None} == {n for n in before if n.startswith("blocks.1.")}
    after = {name: cut(tensor, plan.get(name, ())) for name, tensor in before.items() if plan.get(name, ()) is not None}
    assert after.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(after[name], parameter) for name, parameter in model.named_parameters())


def test_frozen_parameters_stay_frozen() -> None:
    model = small_vit().requires_grad_(False)
    remove(model, Kept({0: (0,)}, {0: (1,)}))
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_keeping_everything_changes_nothing() -> None:
    model = small_vit()
    before = dict(model.named_parameters())
    remove(model, everything(model))
    assert dict(model.named_parameters()).keys() == before.keys()


def test_a_fresh_model_is_brought_to_a_structure() -> None:
    thin, fresh = small_vit(), small_vit(seed=5)
    remove(thin, Kept({0: (2,), 2: (0, 1)}, {0: (3, 4), 2: (7,)}))
    shrink(fresh, Structure.from_dict(structure_of(thin).as_dict()))
    fresh.load_state_dict(thin.state_dict())
    torch.testing.assert_close(fresh(IMAGES), thin(IMAGES), rtol=0, atol=0)


def test_a_thinned_model_is_quantized_as_any_other() -> None:
    model = small_vit()
    remove(model, Kept({0: (0, 1), 2: (1,)}, {0: tuple(range(20)), 2: tuple(range(8))}))
    wanted = model(IMAGES)
    assert "blocks.2.attn.products" in insert(model, Quantization(attention_products=True))
    model.train()(IMAGES)
    assert (model.eval()(IMAGES) - wanted).abs().max() < 0.1 * wanted.abs().max()


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ModelError, match="Linear: heads, widths and blocks are known of timm's VisionTransformer only"):
        structure_of(nn.Linear(2, 2))
    with pytest.raises(ModelError, match=r"blocks\.0 has a norm over heads or neurons"):
        structure_of(small_vit(scale_mlp_norm=True))
    quantized = small_vit()
    insert(quantized, Quantization())
    with pytest.raises(ModelError, match="quantized: its parts cannot be removed"):
        remove(quantized, everything(quantized))
    with pytest.raises(ModelError, match="more than the model"):
        shrink(small_vit(), Structure.from_dict({"blocks": [{"number": 3, "heads": 1, "width": 1}]}))


@pytest.mark.parametrize(
    "values", [{}, {"blocks": []}, {"blocks": [{"number": 0, "heads": 0, "width": 1}]}, {"blocks": [{"heads": 1}]}]
)
def test_a_structure_that_is_none_is_told(values: dict) -> None:
    with pytest.raises(ModelError, match="structure"):
        Structure.from_dict(values)
