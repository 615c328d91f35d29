from itertools import pairwise

import pytest
import torch

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.rates import describe
from ovit_deploy.recipe.timeline import timeline

STEPS = 10


def rates(text: str, epochs: float = 6) -> list[float]:
    """The rate of every step, ten an epoch."""
    recipe = parse_recipe(f"modifiers:\n  - !EpochRangeModifier {{start_epoch: 0, end_epoch: {epochs}}}\n  - {text}\n")
    plan = timeline(recipe)
    return [plan.learning_rate(step / STEPS, 1 / STEPS) for step in range(round(epochs * STEPS))]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_one_cycle_is_torchs(share) -> None:
    settings = f"{{max_lr: 0.5, pct_start: {share}, lr_min: 0.0001}}"
    told = rates(
        f"!LearningRateModifier {{lr_class: OneCycleLR, lr_kwargs: {settings}, init_lr: 0.02, start_epoch: 0, "
        "end_epoch: 6}"
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.5, total_steps=60, pct_start=share, div_factor=25, final_div_factor=200
    )
    expected = []
    for _ in range(60):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        if len(expected) < 60:
            scheduler.step()
    assert told == pytest.approx(expected, rel=1e-6)


def test_one_cycle_needs_an_end() -> None:
    with pytest.raises(RecipeError, match="needs an end_epoch"):
        rates(
            "!LearningRateModifier "
            "{lr_class: OneCycleLR, lr_kwargs: {max_lr: 1, pct_start: 0.3, lr_min: 0}, init_lr: 0}"
        )


def test_a_warm_up_is_a_line_to_where_the_rate_then_is() -> None:
    cosine = "!LearningRateFunctionModifier {lr_func: cosine, init_lr: 0.1, final_lr: 0, start_epoch: 1, end_epoch: 6"
    plain, warm = rates(cosine + "}"), rates(cosine + ", warmup_epochs: 2, warmup_lr: 0.001}")
    assert warm[30:] == plain[30:]
    assert warm[10] == pytest.approx(0.001)
    steps = {round(later - earlier, 12) for earlier, later in pairwise(warm[10:31])}
    assert len(steps) == 1
    assert min(steps) > 0


def test_torchs_schedules_warm_up_too() -> None:
    text = "!LearningRateModifier {lr_class: ExponentialLR, lr_kwargs: {gamma: 0.5}, init_lr: 0.1, warmup_epochs: 1}"
    told = rates(text)
    assert told[0] == 0
    assert told[5] == pytest.approx(0.025)
    assert told[10] == pytest.approx(0.05)


def test_a_warm_up_fits_into_its_rate() -> None:
    with pytest.raises(RecipeError, match="warmup_epochs 3 is longer"):
        rates(
            "!LearningRateFunctionModifier "
            "{lr_func: linear, init_lr: 0.1, final_lr: 0, start_epoch: 1, end_epoch: 3, warmup_epochs: 3}"
        )


def test_a_plan_tells_of_the_warm_up() -> None:
    recipe = parse_recipe(
        "modifiers:\n  - !LearningRateFunctionModifier {lr_func: linear, init_lr: 0.1, final_lr: 0, start_epoch: 0, "
        "end_epoch: 3, warmup_epochs: 1, warmup_lr: 1e-6}\n"
    )
    assert describe(timeline(recipe).rates[0]).endswith("1 epochs of warm-up from 1e-06")
