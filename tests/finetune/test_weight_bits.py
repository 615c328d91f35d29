"""``weight_bits``: prune, round what is kept, and quantize, by one recipe."""

import pytest
import torch
from cases import tiny_calibration, tiny_vit

from ovit_deploy.errors import RecipeError
from ovit_deploy.finetune.actions import State, carry_out
from ovit_deploy.quantization.insert import QuantizedLinear
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.recipe.timeline import timeline

RECIPE = """modifiers:
  - !OViTPruningModifier
    params: ['re:blocks.0.*fc1.weight']
    init_sparsity: 0.6
    final_sparsity: 0.6
    start_epoch: 0
    end_epoch: 0
    update_frequency: 1
    num_grads: 20
    fisher_block_size: 32
    damp: 0.0001
    {more}
  - !QuantizationModifier
    start_epoch: 0
    submodules: [blocks]
    scheme:
      weights: {{num_bits: 4, symmetric: true, strategy: channel, observer: min_max}}
      input_activations: null
"""


def pruned_and_quantized(more: str) -> QuantizedLinear:
    """The first layer of a tiny ViT's first MLP, after the recipe."""
    recipe, model = parse_recipe(RECIPE.format(more=more)), tiny_vit()
    targets = resolve(recipe, {name: tuple(p.shape) for name, p in model.named_parameters()})
    optimizer = torch.optim.AdamW(model.parameters())
    state = State(model, optimizer, targets, lambda num, draw=0: tiny_calibration(num), 2**26, lambda _: None)
    for item in timeline(recipe).dated:
        carry_out(item.action, state, item.epoch)
    layer = model.get_submodule("blocks.0.mlp.fc1")
    assert isinstance(layer, QuantizedLinear)
    return layer


def test_what_was_rounded_is_what_the_quantized_model_computes_with() -> None:
    layer, nearest = pruned_and_quantized("weight_bits: 4"), pruned_and_quantized("")
    torch.testing.assert_close(layer.weight_quantizer(layer.weight), layer.weight, rtol=1e-5, atol=0)
    rounded = nearest.weight_quantizer(nearest.weight)
    torch.testing.assert_close(layer.weight.abs().amax(1), rounded.abs().amax(1))  # on the same grid,
    assert not torch.allclose(layer.weight, rounded, atol=1e-4)  # and elsewhere on it


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("weight_bits: 9", "weight_bits"),
        ("weight_bits: 8\n    num_recomputations: 2", "prune once"),
        ("weight_bits: 8\n    heal_samples: 20", "heal_samples"),
    ],
)
def test_what_rounding_does_not_serve_is_an_error_of_the_recipe(more: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        parse_recipe(RECIPE.format(more=more))


def test_a_gradual_pruning_does_not_round() -> None:
    text = RECIPE.format(more="weight_bits: 8").replace("end_epoch: 0", "end_epoch: 2")
    with pytest.raises(RecipeError, match="prune once"):
        parse_recipe(text)
