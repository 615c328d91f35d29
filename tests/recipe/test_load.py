import pytest

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.load import load_recipe, parse_recipe
from ovit_deploy.recipe.pruners import CAPruningModifier, OViTPruningModifier

GRADUAL = """
num_epochs: 10
half: eval(num_epochs / 2)
pruning_modifiers:
  - !GMPruningModifier
    params: __ALL_PRUNABLE__
    init_sparsity: 0.05
    final_sparsity: 0.8
    start_epoch: 1
    end_epoch: eval(half - 1)
    update_frequency: 1e-1
"""


def problems(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, source="r.yaml")
    return caught.value.message.splitlines()


def test_variables_and_expressions_are_computed_whatever_their_order() -> None:
    modifier = parse_recipe(GRADUAL).modifiers[0]
    assert modifier.end_epoch == 4
    assert modifier.update_frequency == 0.1
    assert modifier.params == ("__ALL_PRUNABLE__",)


def test_an_override_replaces_a_variable_before_it_is_used() -> None:
    assert parse_recipe(GRADUAL, overrides={"num_epochs": "20"}).modifiers[0].end_epoch == 9


def test_an_override_reaches_what_an_anchor_names() -> None:
    text = "n: &n 3\nmodifiers:\n  - !EpochRangeModifier {start_epoch: 0, end_epoch: *n}\n"
    assert parse_recipe(text, overrides={"n": "7"}).modifiers[0].end_epoch == 7


def test_overriding_an_unknown_variable_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="no variable 'epochs'.*num_epochs"):
        parse_recipe(GRADUAL, overrides={"epochs": "20"})


def test_all_problems_are_told_at_once_with_their_places() -> None:
    text = """modifiers:
  - !GMPruningModifer
    params: x
  - !EpochRangeModifier
    start_epoch: 0
    end_epoch: -3
    stop: 1
  - !SetWeightDecayModifier
    weight_decay: eval(wd * 2)
"""
    found = problems(text)
    assert found[0] == "r.yaml:2:5: unknown modifier !GMPruningModifer, did you mean 'GMPruningModifier'?"
    assert any(line.startswith("r.yaml:6:5: EpochRangeModifier.end_epoch") for line in found)
    assert any(line.startswith("r.yaml:7:5: EpochRangeModifier.stop: unknown key") for line in found)
    assert any(line.startswith("r.yaml:9:5: eval(wd * 2): unknown variable 'wd'") for line in found)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no modifiers"),
        ("- 1", "a recipe is a mapping"),
        ("a: [1", "r.yaml:1:"),
        ("a: 1\na: 2\nmodifiers: []", "r.yaml:2:1: key 'a' stands here a second time"),
        ("modifiers: 3", "must be a list of modifiers"),
        ("modifiers: [{a: 1}]", "not a modifier"),
        ("stage:\n  pruning_modifiers: []", "no modifiers"),
        ("trainin: {batch_size: 3}\nmodifiers: []", "did you mean 'training'?"),
        ("modifiers:\n  - !SetWeightDecayModifier {weight_decay: eval(__import__('os'))}", "is not arithmetic"),
        ("modifiers:\n  - !SetWeightDecayModifier {weight_decay: eval(9**9**9)}", "exponent"),
        ("a: eval(b)\nb: eval(a)\nmodifiers:\n  - !SetWeightDecayModifier {weight_decay: eval(a)}", "refers to itself"),
        (GRADUAL.replace("final_sparsity: 0.8", "final_sparsity: 0.01"), "below init_sparsity"),
        (GRADUAL.replace("final_sparsity: 0.8", "final_sparsity: 1.0"), "less than 1"),
        (GRADUAL.replace("final_sparsity: 0.8", "mask_type: '2:4'\n    final_sparsity: 0.8"), "2:4 has one sparsity"),
        (GRADUAL.replace("half - 1", "0 - 1 / 2"), "end_epoch"),
    ],
)
def test_a_broken_recipe_says_what_is_broken(text: str, told: str) -> None:
    assert any(told in line for line in problems(text)), problems(text)


def test_an_alias_bomb_is_refused_quickly() -> None:
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12))
    assert any("more than" in line for line in problems(f"a0: &a0 1\n{levels}\nmodifiers: []"))


def test_ca_pruning_is_ovit_with_its_own_defaults() -> None:
    text = GRADUAL.replace("GMPruningModifier", "CAPruningModifier")
    modifier = parse_recipe(text).modifiers[0]
    assert isinstance(modifier, CAPruningModifier)
    assert isinstance(modifier, OViTPruningModifier)
    assert (modifier.fisher_block_size, modifier.allocation) == (50, "cumulative")


def test_a_recipe_that_is_not_text_is_refused(tmp_path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(path)
