import pytest
import torch
from cases import tiny_vit

from ovit_deploy.errors import PruningError
from ovit_deploy.finetune.actions import State, carry_out
from ovit_deploy.finetune.masks import sparsity
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.recipe.timeline import timeline

FREEZE = "modifiers: [!TrainableParamsModifier {params: 're:.*bias', trainable: false, start_epoch: 1, end_epoch: 2}]"
OWN = """modifiers:
  - !GMPruningModifier
    params: ['re:blocks.*fc1.weight']
    init_sparsity: __FROM_PARAM__
    final_sparsity: 0.8
    start_epoch: 0
    end_epoch: 2
    update_frequency: 1
    inter_func: linear
"""


def state_of(text: str) -> tuple[State, list]:
    recipe = parse_recipe(text)
    model = tiny_vit()
    targets = resolve(recipe, {name: tuple(p.shape) for name, p in model.named_parameters()})
    optimizer = torch.optim.AdamW(model.parameters())
    state = State(model, optimizer, targets, lambda _: pytest.fail("needs no images"), None, lambda _: None)
    return state, [(item.epoch, item.action) for item in timeline(recipe).dated]


def test_frozen_parameters_learn_again_afterwards() -> None:
    state, dated = state_of(FREEZE)
    state.model.get_parameter("head.bias").requires_grad_(False)
    seen = []
    for epoch, action in dated:
        carry_out(action, state, epoch)
        frozen = {name for name, p in state.model.named_parameters() if not p.requires_grad}
        seen.append((len(frozen) > 1, all(name.endswith("bias") for name in frozen), "head.bias" in frozen))
    assert seen == [(True, True, True), (False, True, True)]


def test_pruning_may_start_from_the_zeros_that_are_there() -> None:
    state, dated = state_of(OWN)
    for names in state.targets.values():
        for name in names:
            weight = state.model.get_parameter(name).data
            weight[: weight.shape[0] // 2] = 0
    grown = []
    for epoch, action in dated:
        carry_out(action, state, epoch)
        grown.append(sparsity(state.masks))
    assert grown == pytest.approx([0.5, 0.65, 0.8], abs=1e-3)


def test_more_zeros_than_the_recipe_ends_with_are_an_error() -> None:
    state, dated = state_of(OWN)
    for names in state.targets.values():
        for name in names:
            state.model.get_parameter(name).data[:] = 0
    with pytest.raises(PruningError, match=r"100.00% of the targets are zeros, final_sparsity is 80.00%"):
        carry_out(dated[0][1], state, 0)
