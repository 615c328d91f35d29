"""``compat: sparseml`` as pure dates and rates; the golden traces in tests/manager hold the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe import compose, timeline
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.sparseml import epoch_of, first_step, update_steps
from ovit_deploy.recipe.write import write

EPOCHS = st.integers(0, 400).map(lambda k: k / 100)
PRUNE = """compat: sparseml
modifiers:
  - !GMPruningModifier {params: [w], init_sparsity: 0.1, final_sparsity: 0.5, start_epoch: 1.3, end_epoch: 3.7,
      update_frequency: 0.7}
"""


def naive(start: float, end: float, every: float, steps_per_epoch: int) -> set[int]:
    """SparseML's state machine, step by step: start_pending, update_ready, end_pending."""
    started, last, updates = False, 0.0, set()
    for step in range(10 * steps_per_epoch):
        epoch = step // steps_per_epoch + (step % steps_per_epoch) / steps_per_epoch
        if not started and epoch >= start:
            started, last = True, epoch
            updates.add(step)
            if epoch >= end and end <= start:
                break
        elif started and (epoch >= end or epoch >= last + every):
            last = epoch
            updates.add(step)
            if epoch >= end:
                break
    return updates


@given(EPOCHS, EPOCHS, st.integers(1, 200).map(lambda k: k / 100), st.integers(1, 30))
def test_updates_are_those_of_the_state_machine(start: float, length: float, every: float, steps: int) -> None:
    end = start + length
    if first_step(end, 1 / steps) == first_step(start, 1 / steps):
        assert update_steps(start, end, every, steps) == {first_step(start, 1 / steps)}
    else:
        assert update_steps(start, end, every, steps) == naive(start, end, every, steps)


@given(st.floats(0, 1e4), st.integers(1, 5000))
def test_the_first_step_is_the_first(epoch: float, steps: int) -> None:
    found = first_step(epoch, 1 / steps)
    assert epoch_of(found, steps) >= epoch
    assert found == 0 or epoch_of(found - 1, steps) < epoch


def test_the_grid_drifts_only_in_compat() -> None:
    def dates(text: str) -> list[float]:
        plan = timeline(parse_recipe(text))
        return [k / 4 for k in range(24) if plan.due(k / 4, 0.25)]

    assert dates(PRUNE) == [1.5, 2.25, 3.0, 3.75]
    assert dates(PRUNE.removeprefix("compat: sparseml\n")) == [1.25, 2.0, 2.75, 3.5, 3.75]


@pytest.mark.parametrize("compat", ["", "compat: sparseml\n"])
def test_minus_one_prunes_at_every_step(compat: str) -> None:
    text = compat + PRUNE.removeprefix("compat: sparseml\n").replace("0.7}", "-1}").replace("1.3", "1").replace(
        "3.7", "2"
    )
    plan = timeline(parse_recipe(text))
    due = {k: plan.due(k / 4, 0.25) for k in range(20)}
    assert [k for k, actions in due.items() if actions] == [4, 5, 6, 7, 8]
    assert all(len(actions) <= 1 for actions in due.values())
    assert [round(due[k][0].sparsity, 6) for k in (4, 6, 8)] == [0.1, 0.45, 0.5]


def test_compat_survives_writing_and_composing() -> None:
    recipe = parse_recipe(PRUNE)
    assert parse_recipe(write(recipe)).compat == "sparseml"
    assert compose(recipe, recipe).compat == "sparseml"


def test_another_compat_is_an_error_at_its_place() -> None:
    with pytest.raises(RecipeError, match=r"recipe:1:1: compat must be sparseml"):
        parse_recipe(PRUNE.replace("compat: sparseml", "compat: keras"))
