import pytest

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.selectors import SelectorError, match, prunable

SHAPES = {
    "cls_token": (1, 1, 8),
    "blocks.0.norm1.weight": (8,),
    "blocks.0.attn.qkv.weight": (24, 8),
    "blocks.0.attn.qkv.bias": (24,),
    "blocks.0.mlp.fc1.weight": (32, 8),
    "head.weight": (10, 8),
}


def test_prunable_means_matrices_called_weight() -> None:
    assert prunable(SHAPES) == ["blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "head.weight"]


def test_patterns_match_from_the_start_and_keep_the_models_order() -> None:
    chosen = match(["head.weight", "re:blocks.*(fc1|qkv).weight"], SHAPES)
    assert chosen == ["blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "head.weight"]


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        ("re:.*attn.[qkv].weight", "matches no parameter"),
        ("re:(", "not a regular expression"),
        ("head.wieght", "did you mean 'head.weight'"),
    ],
)
def test_a_selector_that_selects_nothing_is_an_error(selector: str, told: str) -> None:
    with pytest.raises(SelectorError, match=told):
        match([selector], SHAPES)


def test_unmatched_targets_are_told_with_their_place() -> None:
    recipe = parse_recipe("modifiers:\n  - !ConstantPruningModifier {params: nothing}\n", source="r.yaml")
    with pytest.raises(
        RecipeError, match=r"r.yaml:2:5: ConstantPruningModifier.params: no parameter is named 'nothing'"
    ):
        resolve(recipe, SHAPES)


def test_a_recipe_of_another_family_is_told_which_to_take() -> None:
    text = "modifiers:\n  - !ConstantPruningModifier {params: ['re:blocks.*weight'], start_epoch: 0}\n"
    with pytest.raises(RecipeError, match="matches no parameter") as caught:
        resolve(parse_recipe(text), {"layer1.0.conv1.weight": (8, 8, 3, 3)}, "resnet18.a1_in1k")
    assert "recipe resnet_75 names those of ResNet" in caught.value.hint
