"""Sparsities of layers for a time: against every combination, on times that are whole ticks."""

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.latency import Option, fastest_ms, front, plans, slowest_ms

LAYER = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), min_size=1, max_size=4)
NETWORKS = st.lists(LAYER, min_size=1, max_size=4)
FIXED_MS = 3.0


def options_of(network: list[list[tuple[int, int]]]) -> dict[str, list[Option]]:
    return {
        f"layer {number}": [Option(at / 10, float(ms), float(loss)) for at, (ms, loss) in enumerate(layer)]
        for number, layer in enumerate(network)
    }


def every_plan(options: dict[str, list[Option]]) -> list[tuple[float, float]]:
    """Time and loss of every combination."""
    chosen = product(*options.values())
    return [(FIXED_MS + sum(one.ms for one in plan), sum(one.loss for one in plan)) for plan in chosen]


@given(NETWORKS, st.integers(0, 40))
def test_a_plan_has_the_least_loss_of_all_that_keep_the_time(network, extra) -> None:
    options = options_of(network)
    span = round(slowest_ms(options, FIXED_MS) - fastest_ms(options, FIXED_MS))
    target = fastest_ms(options, FIXED_MS) + extra
    (plan,) = plans(options, [target], fixed_ms=FIXED_MS, num_ticks=max(1, span))
    assert plan.ms <= target
    assert plan.loss == min(loss for ms, loss in every_plan(options) if ms <= target)
    assert (plan.ms, plan.loss) in every_plan(options)


@given(NETWORKS)
def test_a_plan_never_takes_longer_than_its_target_whatever_the_ticks(network) -> None:
    options = options_of(network)
    target = (fastest_ms(options, FIXED_MS) + slowest_ms(options, FIXED_MS)) / 2
    (plan,) = plans(options, [target], fixed_ms=FIXED_MS, num_ticks=7)
    assert plan.ms <= target + 1e-9


@given(NETWORKS)
def test_the_front_falls_and_ends_at_the_least_loss(network) -> None:
    options = options_of(network)
    found = front(options, fixed_ms=FIXED_MS)
    assert [plan.ms for plan in found] == sorted(plan.ms for plan in found)
    assert all(one.loss > other.loss for one, other in pairwise(found))
    assert found[0].ms == pytest.approx(fastest_ms(options, FIXED_MS))
    assert found[-1].loss == min(loss for _, loss in every_plan(options))


def test_a_time_that_cannot_be_reached_is_an_error_that_names_the_fastest() -> None:
    options = {"a": [Option(0.0, 10.0, 0.0), Option(0.9, 4.0, 1.0)], "b": [Option(0.0, 5.0, 0.0)]}
    with pytest.raises(PruningError, match="5 ms cannot be reached: the fastest .* is 10 ms"):
        plans(options, [5.0], fixed_ms=1.0)
