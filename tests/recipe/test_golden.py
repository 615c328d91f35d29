"""Learning rates and sparsities of each step, as SparseML 1.8.0 itself had them on a small network.

Where we differ on purpose (recipes/README.md tells why) the test says so instead of comparing.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.timeline import Prune, Timeline, timeline

GOLDEN = Path(__file__).parent / "golden"
RATES: dict[str, dict[str, Any]] = json.loads((GOLDEN / "rates.json").read_text())
SPARSITIES: dict[str, dict[str, Any]] = json.loads((GOLDEN / "sparsities.json").read_text())


def ours(case: dict[str, Any]) -> tuple[Timeline, list[float], float]:
    step = 1 / case["steps_per_epoch"]
    count = len(case.get("learning_rates") or case["sparsities"])
    return timeline(parse_recipe(case["recipe"])), [k * step for k in range(count)], step


def test_step_decay_is_sparsemls() -> None:
    plan, epochs, step = ours(RATES["lr_step"])
    begun = [(e, rate) for e, rate in zip(epochs, RATES["lr_step"]["learning_rates"], strict=True) if e >= 1]
    assert [plan.learning_rate(e, step) for e, _ in begun] == pytest.approx([rate for _, rate in begun])


def test_cycles_are_sparsemls_and_end_where_they_should() -> None:
    plan, epochs, step = ours(RATES["lr_cyclic"])
    rates = [plan.learning_rate(epoch, step) for epoch in epochs]
    assert rates[:20] == pytest.approx(RATES["lr_cyclic"]["learning_rates"][:20])
    assert rates[20:] == pytest.approx([0.01] * 4)  # SparseML jumps back to 0.1 after the end
    assert RATES["lr_cyclic"]["learning_rates"][20:] == pytest.approx([0.1] * 4)


def test_ramps_are_sparsemls_but_reach_their_end_one_step_earlier() -> None:
    case = RATES["lr_all"]
    plan, epochs, step = ours(case)
    exact = [plan.learning_rate(epoch, 1e-9) for epoch in epochs]
    assert exact == pytest.approx(case["learning_rates"], rel=1e-4)
    assert plan.learning_rate(3 - step, step) == pytest.approx(0.01)
    assert plan.learning_rate(5 - step, step) == pytest.approx(0.001)


@pytest.mark.parametrize("name", SPARSITIES)
def test_sparsities_are_sparsemls(name: str) -> None:
    case = SPARSITIES[name]
    plan, epochs, step = ours(case)
    sparsity, steps = 0.0, []
    for epoch in epochs:
        for action in plan.due(epoch, step):
            sparsity = action.sparsity if isinstance(action, Prune) else sparsity
        steps.append(sparsity)
    assert steps == pytest.approx(case["sparsities"], abs=1.5 / case["weights"])
