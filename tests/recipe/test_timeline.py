import json
from itertools import pairwise
from pathlib import Path

import pytest

from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.schedule import interpolate, update_epochs
from ovit_deploy.recipe.timeline import Distill, Prune, WeightDecay, timeline


def gradual(**changes: object) -> str:
    keys = {
        "params": "['re:.*']",
        "init_sparsity": 0.05,
        "final_sparsity": 0.8,
        "start_epoch": 1,
        "end_epoch": 4,
        "update_frequency": 0.5,
    } | changes
    return "modifiers:\n  - !GMPruningModifier\n" + "".join(f"    {key}: {value}\n" for key, value in keys.items())


def prunings(text: str) -> list[tuple[float, float]]:
    return [(d.epoch, d.action.sparsity) for d in timeline(parse_recipe(text)).dated if isinstance(d.action, Prune)]


def test_cubic_sparsities_are_those_of_sparseml() -> None:
    # Measured with SparseML 1.8.0 on small tensors: 0.05 -> 0.8 over epochs 1 to 4, rounded to whole weights.
    measured = [0.0495, 0.3659, 0.5781, 0.7057, 0.7721, 0.7969, 0.7995]
    assert [sparsity for _, sparsity in prunings(gradual())] == pytest.approx(measured, abs=1e-3)


def test_prunings_stay_on_the_grid_of_the_start_and_end_at_the_end() -> None:
    assert [epoch for epoch, _ in prunings(gradual(start_epoch=1.3, end_epoch=3.7, update_frequency=0.7))] == (
        pytest.approx([1.3, 2.0, 2.7, 3.4, 3.7])
    )


def test_equal_start_and_end_is_one_shot() -> None:
    assert prunings(gradual(start_epoch=2, end_epoch=2)) == [(2, 0.8)]


@pytest.mark.parametrize("shape", ["linear", "cubic", "inverse_cubic"])
def test_interpolation_starts_and_ends_where_it_should(shape) -> None:
    assert interpolate(-1, 0.2, 0.7, shape) == pytest.approx(0.2)
    assert interpolate(2, 0.2, 0.7, shape) == pytest.approx(0.7)


def test_update_epochs_have_no_double_end() -> None:
    assert update_epochs(0, 0.3, 0.1) == pytest.approx([0, 0.1, 0.2, 0.3])


RATES = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 6}
  - !LearningRateFunctionModifier
    {lr_func: cyclic_linear, init_lr: 5e-4, final_lr: 1e-5, start_epoch: 0, end_epoch: 4, cycle_epochs: 2}
  - !LearningRateFunctionModifier {lr_func: cosine, init_lr: 5e-4, final_lr: 0, start_epoch: 4, end_epoch: 5}
  - !SetWeightDecayModifier {weight_decay: 0.1, start_epoch: 2}
  - !DistillationModifier {start_epoch: 1, end_epoch: 3}
"""


def test_the_rate_restarts_each_cycle_and_reaches_its_end_at_the_last_step() -> None:
    plan = timeline(parse_recipe(RATES))
    steps = [plan.learning_rate(k / 10, 0.1) for k in range(60)]
    assert [steps[0], steps[19], steps[20], steps[39]] == pytest.approx([5e-4, 1e-5, 5e-4, 1e-5])
    assert all(a > b for a, b in pairwise(steps[:20]))
    assert steps[40] == pytest.approx(5e-4)
    assert steps[49:] == pytest.approx([0.0] * 11, abs=1e-12)


def test_settings_and_distillation_are_dated() -> None:
    plan = timeline(parse_recipe(RATES))
    assert plan.num_epochs == 6
    kinds = [(d.epoch, type(d.action)) for d in plan.dated]
    assert kinds == [(1, Distill), (2, WeightDecay), (3, Distill)]


def test_every_action_is_due_at_exactly_one_step() -> None:
    plan = timeline(parse_recipe(gradual(start_epoch=0.33, end_epoch=2.9, update_frequency=0.17)))
    due = [action for step in range(31) for action in plan.due(step / 10, 0.1)]
    assert due == [item.action for item in plan.dated]


def test_shipped_recipes_are_read() -> None:
    for path in (Path(__file__).parents[2] / "recipes").glob("*.yaml"):
        recipe = parse_recipe(path.read_text(), source=str(path))
        assert timeline(recipe).num_epochs >= 0
        assert json.dumps(recipe.training.model_dump())
