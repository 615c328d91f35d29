"""Modifiers that set parameters, log sparsity, or learn from layers."""

import pytest
import torch
from cases import tiny_vit
from torch import nn
from training_cases import PRUNE, trained, weights_of

from ovit_deploy.errors import RecipeError
from ovit_deploy.finetune.layer_distillation import LayerDistillation, layers_of
from ovit_deploy.pruning import FastOViT
from ovit_deploy.recipe.load import parse_recipe, read_recipe
from ovit_deploy.recipe.modifiers import PerLayerDistillationModifier
from ovit_deploy.recipe.timeline import SetParameters, timeline

STILL = "optimizer: sgd, weight_decay: 0"
FROZEN = "\n  - !SetLearningRateModifier {learning_rate: 1e-12}\n"


def test_a_parameter_is_set_to_a_number_or_to_as_many_as_it_has() -> None:
    numbers = [[float(10 * row + column) for column in range(32)] for row in range(10)]
    modifiers = f"""
  - !SetParamModifier {{params: [head.bias], val: 0.25, start_epoch: 0.5}}
  - !SetParamModifier {{params: [head.weight], val: {numbers}}}
"""
    state, _, _ = trained(STILL, FROZEN + modifiers, epochs=1)
    assert torch.allclose(state.model.get_parameter("head.bias"), torch.tensor(0.25), atol=1e-6)
    assert torch.allclose(state.model.get_parameter("head.weight"), torch.tensor(numbers), atol=1e-6)


def test_what_is_pruned_stays_zero_when_it_is_set() -> None:
    setting = "\n  - !SetParamModifier {params: [blocks.0.mlp.fc1.weight], val: 1, start_epoch: 1.5}\n"
    state, _, _ = trained(STILL, FROZEN + PRUNE + setting)
    name = "blocks.0.mlp.fc1.weight"
    mask, weight = state.masks[name], state.model.get_parameter(name).detach()
    assert 0 < int(mask.sum()) < mask.numel()
    assert torch.equal(weight.round(), mask.float())


def test_numbers_of_another_size_are_an_error() -> None:
    with pytest.raises(RecipeError, match=r"recipe:\d+:\d+: 2 numbers for head.bias, which has 10"):
        trained(modifiers="\n  - !SetParamModifier {params: [head.bias], val: [1, 2]}\n", epochs=1)


def test_a_gradual_value_moves_at_its_dates() -> None:
    recipe = parse_recipe(
        "modifiers:\n  - !GradualParamModifier {params: [a], init_val: 1, final_val: 0, start_epoch: 1, end_epoch: 3, "
        "update_frequency: 0.75, inter_func: cubic}\n"
    )
    found = [(item.epoch, item.action.value) for item in timeline(recipe).dated]
    assert [epoch for epoch, _ in found] == [1, 1.75, 2.5, 3]
    assert [value for _, value in found] == pytest.approx([1, 0.625**3, 0.25**3, 0])
    assert all(isinstance(item.action, SetParameters) for item in timeline(recipe).dated)


def test_sparsities_are_written_down_at_their_dates() -> None:
    logging = "\n  - !SparsificationLoggingModifier {start_epoch: 0.25, update_frequency: 0.5}\n"
    state, _, records = trained(modifiers=PRUNE + logging, epochs=2)
    lines = [line for line in records if line["event"] == "sparsity"]
    assert [(line["epoch"], line["step"]) for line in lines] == [(0.25, 2), (0.75, 6), (1.25, 10), (1.75, 14)]
    assert lines[0]["sparsity"] == 0
    name = "blocks.1.attn.qkv.weight"
    assert lines[3]["layers"][name] == pytest.approx(1 - float(state.masks[name].float().mean()))
    assert set(state.masks) < set(lines[3]["layers"])


def test_the_loss_of_layers_is_the_formula() -> None:
    model, teacher = tiny_vit(0), tiny_vit(1).eval()
    modifier = PerLayerDistillationModifier(student_layer_names=("blocks.0.mlp.fc1", "blocks.1.attn.qkv"), gain=2.0)
    images, labels = torch.randn(6, 3, 16, 16), torch.arange(6)
    task = LayerDistillation(model.eval(), teacher, nn.CrossEntropyLoss(), modifier)
    found = task(images, labels)["loss"]
    task.remove()
    heard: dict[str, torch.Tensor] = {}
    expected = nn.functional.cross_entropy(model(images), labels)
    for name in modifier.student_layer_names:
        for who, network in (("s", model), ("t", teacher)):
            hook = network.get_submodule(name).register_forward_hook(
                lambda _m, _i, output, who=who: heard.__setitem__(who, output)
            )
            network(images)
            hook.remove()
        expected = expected + 2 * (heard["s"] - heard["t"]).square().mean() / (heard["t"].square().mean() + 1e-6)
    torch.testing.assert_close(found, expected)


def test_layers_are_learned_from_while_the_recipe_says_so() -> None:
    distil = "\n  - !PerLayerDistillationModifier {student_layer_names: ['re:blocks.*mlp'], gain: 100, end_epoch: 1}\n"
    with_layers, _, _ = trained(modifiers=PRUNE + distil, epochs=1)
    without, _, _ = trained(modifiers=PRUNE, epochs=1)
    dense = weights_of(tiny_vit())
    gaps = [float((weights_of(state.model) - dense).norm()) for state in (with_layers, without)]
    assert gaps[0] < gaps[1]
    assert not any(module._forward_hooks for module in with_layers.model.modules())


def test_a_layer_that_there_is_not_is_told_with_the_nearest() -> None:
    modifier = PerLayerDistillationModifier(student_layer_names=("blocks.0.mlp.fc9",))
    with pytest.raises(RecipeError, match=r"no layer is named 'blocks.0.mlp.fc9', did you mean 'blocks.0.mlp.fc"):
        layers_of(tiny_vit(), modifier)


@pytest.mark.parametrize(
    ("modifiers", "told"),
    [
        ("- !PerLayerDistillationModifier {student_layer_names: [a], teacher_layer_names: [b]}", "leave teacher_layer"),
        ("- !PerLayerDistillationModifier {student_layer_names: [a]}\n- !DistillationModifier {}", "while another"),
        ("- !GradualParamModifier {params: [a], init_val: 0, final_val: 1, start_epoch: 1, end_epoch: 1, "
         "update_frequency: 1}", "must come after"),
        ("- !TopKASTPruningModifier {forward_sparsity: 0.5}", "not supported yet"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(modifiers: str, told: str) -> None:
    _, problems = read_recipe(f"modifiers:\n{modifiers}\n", source="r.yaml")
    assert any(told in problem.message for problem in problems)


def test_caps_names_and_its_defaults() -> None:
    dates = "init_sparsity: 0.5, final_sparsity: 0.5, start_epoch: 0, end_epoch: 0, update_frequency: 1"
    recipe = parse_recipe(
        f"modifiers:\n- !OBC_OBS_PruningModifier {{params: [a], {dates}}}\n"
        f"- !FastCAPruningModifier {{params: [b], {dates}}}\n"
    )
    obc, fast = recipe.modifiers
    assert (obc.fisher_block_size, obc.num_grads, obc.damp) == (50, 1024, 1e-7)
    assert (fast.fisher_block_size, fast.num_grads, fast.damp) == (50, 1024, 1e-7)


def test_absolute_damping_is_added_as_it_is() -> None:
    fisher_KBB = torch.full((1, 3, 3), 2.0, dtype=torch.float64)
    damped = FastOViT(damping=0.5, damping_kind="absolute").damp(fisher_KBB)
    assert torch.equal(damped[0], fisher_KBB[0] + 0.5 * torch.eye(3, dtype=torch.float64))
