from collections.abc import Callable

import pytest

from ovit_deploy.bench.measure import interleave, plan_duration, plan_iterations
from ovit_deploy.errors import EngineError


def _recorder(name: str, log: list[str]) -> Callable[[int], list[float]]:
    def run(count: int) -> list[float]:
        log.append(name)
        return [1.0] * count

    return run


def test_every_contestant_runs_once_in_every_round() -> None:
    log: list[str] = []
    interleave({name: _recorder(name, log) for name in "abc"}, {name: [1] * 20 for name in "abc"}, seed=0)
    assert all(sorted(log[start : start + 3]) == ["a", "b", "c"] for start in range(0, 60, 3))


def test_the_order_changes_and_is_the_same_for_the_same_seed() -> None:
    logs = []
    for seed in (0, 0, 1):
        log: list[str] = []
        interleave({name: _recorder(name, log) for name in "abc"}, {name: [1] * 20 for name in "abc"}, seed=seed)
        logs.append(log)
    assert logs[0] == logs[1] != logs[2]
    assert len({tuple(logs[0][start : start + 3]) for start in range(0, 60, 3)}) > 1


def test_a_contestant_that_fails_drops_out_and_keeps_what_it_had() -> None:
    turns = iter([[1.0], [2.0]])

    def frail(count: int) -> list[float]:
        for turn in turns:
            return turn
        raise EngineError("died")

    log: list[str] = []
    measured = interleave(
        {"frail": frail, "sound": _recorder("sound", log)}, {"frail": [1] * 5, "sound": [1] * 5}, seed=0
    )
    assert measured.blocks["frail"] == [[1.0], [2.0]]
    assert str(measured.failures["frail"]) == "died"
    assert len(measured.blocks["sound"]) == 5


def test_rounds_are_told_as_they_end() -> None:
    told: list[tuple[int, int]] = []
    interleave({"a": _recorder("a", [])}, {"a": [1, 1]}, seed=0, on_round=lambda *done: told.append(done))
    assert told == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(("iterations", "rounds"), [(1, 1), (7, 7), (10, 10), (53, 10)])
def test_iterations_are_spread_over_rounds_and_none_is_lost(iterations: int, rounds: int) -> None:
    plan = plan_iterations(["a", "b"], iterations)
    assert plan["a"] == plan["b"]
    assert (len(plan["a"]), sum(plan["a"])) == (rounds, iterations)


def test_a_duration_gives_each_contestant_about_that_time() -> None:
    plan = plan_duration({"fast": 10, "slow": 100}, 20)
    assert sum(plan["fast"]) * 10 == pytest.approx(20_000, rel=0.1)
    assert sum(plan["slow"]) * 100 == pytest.approx(20_000, rel=0.1)
    assert len(plan["fast"]) == len(plan["slow"])


def test_a_tiny_model_does_not_fill_the_result_with_runs() -> None:
    assert plan_duration({"tiny": 0.01}, 10) == {"tiny": [200] * 20}


def test_a_run_longer_than_a_block_still_happens_in_every_round() -> None:
    assert plan_duration({"huge": 4000}, 1) == {"huge": [1] * 6}
