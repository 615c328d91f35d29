from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from cases import tiny_vit

from ovit_deploy.errors import PruningError, RecipeError
from ovit_deploy.manager import (
    BaseGradualPruningModifier,
    PruningParamsScorer,
    PyTorchModifierYAML,
    ScheduledModifierManager,
    UnstructuredPruningMaskCreator,
    register_modifier,
)
from ovit_deploy.pruning import Method, Pruned
from ovit_deploy.recipe.pruners import PruningModifier
from ovit_deploy.recipe.schema import MODIFIERS

PRUNE = """modifiers:
  - !{tag}
    params: ['re:blocks.*fc1.weight']
    init_sparsity: 0.25
    final_sparsity: 0.5
    start_epoch: 0
    end_epoch: 1
    update_frequency: 1
    {extra}
"""


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    known = dict(MODIFIERS)
    yield
    MODIFIERS.clear()
    MODIFIERS.update(known)


@dataclass(frozen=True)
class FirstWeights:
    """The first weights of each target go."""

    def prune(self, model, masks, *, sparsity, calibration=None, report=None) -> Pruned:
        kept = {name: torch.arange(mask.numel()) >= round(sparsity * mask.numel()) for name, mask in masks.items()}
        kept = {name: mask.view_as(masks[name]) for name, mask in kept.items()}
        return Pruned(kept, {name: model.get_parameter(name).detach() * mask for name, mask in kept.items()})


class LargestGo(PruningParamsScorer):
    def score_parameters(self):
        return [-param.data.abs() for param in self._params]


def test_a_method_of_ones_own_is_a_tag() -> None:
    @register_modifier()
    class FirstPruningModifier(PruningModifier):
        def method(self, memory_budget: int | None) -> Method:
            return FirstWeights()

    model = tiny_vit()
    ScheduledModifierManager.from_yaml(PRUNE.format(tag="FirstPruningModifier", extra="")).apply(model)
    weight = model.get_parameter("blocks.0.mlp.fc1.weight").flatten()
    assert not weight[: weight.numel() // 2].any()
    assert weight[weight.numel() // 2 :].all()


def test_arguments_of_a_ported_pruner_are_keys_of_its_tag() -> None:
    seen = []

    @PyTorchModifierYAML()
    class OddPruningModifier(BaseGradualPruningModifier):
        def __init__(self, params, init_sparsity, final_sparsity, power, shift=3, **kwargs):
            seen.append((power, shift))
            super().__init__(params=params, init_sparsity=init_sparsity, final_sparsity=final_sparsity, **kwargs)

        def _get_mask_creator(self, param_names, params):
            assert param_names == ["blocks.0.mlp.fc1.weight", "blocks.1.mlp.fc1.weight"]
            return UnstructuredPruningMaskCreator()

        def _get_scorer(self, params):
            return LargestGo(params)

    model = tiny_vit()
    before = model.get_parameter("blocks.1.mlp.fc1.weight").detach().clone()
    ScheduledModifierManager.from_yaml(PRUNE.format(tag="OddPruningModifier", extra="power: 2")).apply(model)
    after = model.get_parameter("blocks.1.mlp.fc1.weight").detach()
    assert seen == [(2, 3)]
    assert before[after == 0].abs().min() >= before[after != 0].abs().max()
    assert int((after == 0).sum()) == round(0.5 * after.numel())
    for extra, told in (
        ("", "'power' is missing"),
        ("pwer: 2\n    power: 2", "did you mean 'power'"),
        ("power: 2\n    mask_type: block4", "has none"),
    ):
        with pytest.raises(RecipeError, match=told):
            ScheduledModifierManager.from_yaml(PRUNE.format(tag="OddPruningModifier", extra=extra))


def test_what_nobody_would_call_is_refused() -> None:
    class OwnLoopPruningModifier(BaseGradualPruningModifier):
        def check_mask_update(self, module, epoch, steps_per_epoch):
            pass

    with pytest.raises(RecipeError, match="overrides check_mask_update"):
        register_modifier()(OwnLoopPruningModifier)
    with pytest.raises(RecipeError, match="cannot be a modifier"):
        register_modifier()(dict)


def test_a_tag_that_is_taken_is_refused() -> None:
    kind = type("GMPruningModifier", (BaseGradualPruningModifier,), {"__module__": "elsewhere"})
    with pytest.raises(RecipeError, match="is taken by ovit_deploy"):
        register_modifier()(kind)


def test_a_scorer_that_follows_gradients_cannot_prune_in_one_shot() -> None:
    class Follows(LargestGo):
        def pre_optim_step_update(self, masks):
            raise AssertionError

    @register_modifier()
    class FollowingPruningModifier(BaseGradualPruningModifier):
        def _get_mask_creator(self, param_names, params):
            return UnstructuredPruningMaskCreator()

        def _get_scorer(self, params):
            return Follows(params)

    with pytest.raises(PruningError, match="has seen no step"):
        ScheduledModifierManager.from_yaml(PRUNE.format(tag="FollowingPruningModifier", extra="")).apply(tiny_vit())
