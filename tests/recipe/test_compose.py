from pathlib import Path

import pytest

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.compose import compose
from ovit_deploy.recipe.load import load_recipe, parse_recipe
from ovit_deploy.recipe.timeline import Distill, Prune, WeightDecay, timeline
from ovit_deploy.recipe.write import header_of, write

CORPUS = Path(__file__).parent / "corpus"
FIRST = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 3}
  - !DistillationModifier {hardness: 0.5}
  - !SetLearningRateModifier {learning_rate: 1e-3}
"""
SECOND = """
modifiers:
  - !SetWeightDecayModifier {weight_decay: 0.1}
  - !LearningRateModifier {lr_class: MultiStepLR, lr_kwargs: {milestones: [1], gamma: 0.1}, init_lr: 0.1}
  - !GlobalMagnitudePruningModifier
    {params: x, init_sparsity: 0.5, final_sparsity: 0.5, start_epoch: 1, end_epoch: 2, update_frequency: 1}
"""


def test_the_second_begins_where_the_first_ends() -> None:
    whole = compose(parse_recipe(FIRST, source="a.yaml"), parse_recipe(SECOND, source="b.yaml"))
    plan = timeline(whole)
    assert whole.name == "a+b"
    assert plan.num_epochs == 5
    dated = [(item.epoch, type(item.action)) for item in plan.dated]
    assert dated == [(0, Distill), (3, Distill), (3, WeightDecay), (4, Prune), (5, Prune)]
    assert [plan.learning_rate(e, 0.1) for e in (2, 3, 4)] == pytest.approx([1e-3, 0.1, 0.01])


def test_stages_get_names_that_are_free() -> None:
    plain, staged = parse_recipe(FIRST), load_recipe(CORPUS / "staged.yaml")
    assert set(compose(plain, plain).stages) == {"stage_0", "stage_1"}
    assert set(compose(compose(plain, plain), plain).stages) == {"stage_0", "stage_1", "stage_2"}
    assert set(compose(staged, staged).stages) == {
        "dense_stage",
        "dense_stage_0",
        "pruning_stage",
        "pruning_stage_0",
    }


def test_what_is_composed_can_be_written_and_read_again() -> None:
    whole = compose(load_recipe(CORPUS / "staged.yaml"), load_recipe(CORPUS / "anchors.yaml"))
    again = parse_recipe(whole.text, source=whole.source)
    assert again == whole
    assert timeline(again).num_epochs == 10


def test_two_ways_to_train_cannot_be_composed() -> None:
    one, other = (parse_recipe(f"training: {{batch_size: {size}}}\n{FIRST}") for size in (32, 64))
    assert compose(one, one).training.batch_size == 32
    assert compose(one, parse_recipe(FIRST)).training.batch_size == 32
    with pytest.raises(RecipeError, match="different sections 'training'"):
        compose(one, other)


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_a_written_recipe_is_the_same_recipe(path: Path) -> None:
    recipe = load_recipe(path)
    again = parse_recipe(write(recipe))
    assert again.modifiers == recipe.modifiers
    assert (again.stages, again.training, again.model) == (recipe.stages, recipe.training, recipe.model)


def test_the_first_comment_is_kept() -> None:
    text = (CORPUS / "cap.yaml").read_text()
    assert write(parse_recipe(text), header_of(text)).startswith("# A saw tooth of 20 epochs")
