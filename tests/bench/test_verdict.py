"""The verdict on made-up timings whose truth is known."""

import numpy as np
import pytest

from ovit_deploy.bench.verdict import expanded_tail, judge, over_processes, speed_up, student_975

BENCHMARKS = 100
RUNS = 8


def timings(draw: np.random.Generator, units: int, *, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Two sides' latencies [units, runs] in ms; the second one's true median is the first one's over ``factor``.

    Each unit: the weather of the machine, shared (one in five 1.2 to 1.9 times slower); a state of its own for each
    side, 1 % (memory layout, caches); every run 3 % on the slow side only, as timings are, and one in fifty an
    interruption that doubles it.
    """
    slow = np.where(draw.random((units, 1)) < 0.2, draw.uniform(1.2, 1.9, (units, 1)), 1.0)
    sides = []
    for true_ms in (20.0, 20.0 / factor):
        state = np.exp(draw.normal(0, 0.01, (units, 1)))
        runs = 1 + draw.gamma(2, 0.015, (units, RUNS)) + (draw.random((units, RUNS)) < 0.02)
        sides.append(true_ms * slow * state * runs)
    return sides[0], sides[1]


def verdicts(units: int, factor: float) -> list[str]:
    draw = np.random.default_rng(round(1000 * factor) + units)
    return [speed_up(*map(list, timings(draw, units, factor=factor)), seed=0).verdict for _ in range(BENCHMARKS)]


@pytest.mark.parametrize("units", [6, 10, 20])
def test_equal_sides_are_called_faster_or_slower_at_most_once_in_twenty(units: int) -> None:
    found = verdicts(units, 1.0)
    assert (found.count("faster") + found.count("slower")) / BENCHMARKS <= 0.05


@pytest.mark.parametrize("units", [10, 20])
@pytest.mark.parametrize(("factor", "expected"), [(1 / 1.05, "slower"), (1.05, "faster")])
def test_five_percent_are_found_nineteen_times_in_twenty(units: int, factor: float, expected: str) -> None:
    assert verdicts(units, factor).count(expected) / BENCHMARKS >= 0.95


def test_equal_sides_are_called_equivalent_once_there_are_enough_units() -> None:
    assert verdicts(40, 1.0).count("equivalent") / BENCHMARKS >= 0.95


@pytest.mark.parametrize("units", [6, 10, 20])
def test_the_interval_holds_the_truth_nineteen_times_in_twenty(units: int) -> None:
    draw = np.random.default_rng(units)
    found = [speed_up(*map(list, timings(draw, units, factor=1.6)), seed=0) for _ in range(BENCHMARKS)]
    assert np.mean([one.low <= 1.6 <= one.high for one in found]) >= 0.93


@pytest.mark.parametrize(
    ("low", "high", "units", "expected"),
    [
        (1.01, 1.06, 10, "faster"),
        (0.94, 0.99, 10, "slower"),
        (0.99, 1.015, 10, "equivalent"),
        (1.005, 1.015, 10, "equivalent"),
        (0.97, 1.05, 10, "inconclusive"),
        (1.5, 1.6, 5, "inconclusive"),
    ],
)
def test_an_interval_says_one_thing(low: float, high: float, units: int, expected: str) -> None:
    assert judge(low, high, units) == expected


@pytest.mark.parametrize(
    ("freedom", "expected"), [(4, 2.776445), (5, 2.570582), (9, 2.262157), (19, 2.093024), (120, 1.979930)]
)
def test_students_quantile_is_the_tabulated_one(freedom: int, expected: float) -> None:
    assert student_975(freedom) == pytest.approx(expected, rel=1e-3)


def test_the_tail_is_that_of_the_paper() -> None:
    assert expanded_tail(10) == pytest.approx(0.0086, abs=1e-4)  # Phi(-1.0541 x 2.2622)
    assert expanded_tail(100_000) == pytest.approx(0.025, abs=1e-4)


def test_a_speed_up_is_the_median_of_ratios() -> None:
    found = speed_up([[3.0, 5.0], [4.0]], [[1.0, 2.0], [3.0]], seed=0)
    assert found.factor == 2
    assert found.low <= found.factor <= found.high


def test_equal_rounds_leave_no_doubt() -> None:
    found = speed_up([[6.0]] * 5, [[2.0]] * 5, seed=0)
    assert (found.low, found.factor, found.high) == (3, 3, 3)


def test_a_slow_machine_in_some_rounds_does_not_widen_the_interval() -> None:
    weather = np.repeat([[1.0], [1.8]], 10, axis=0)
    found = speed_up(list(6 * weather), list(2 * weather), seed=0)
    assert found.factor == pytest.approx(3)
    assert found.high - found.low < 1e-9


def test_the_interval_is_that_of_a_plain_bootstrap_over_units_with_wider_percentiles() -> None:
    draw = np.random.default_rng(3)
    dense, sparse = draw.gamma(9, size=(20, 4)), draw.gamma(4, size=(20, 4))
    naive = []
    for _ in range(4000):
        units = [int(draw.integers(20)) for _ in range(20)]
        naive.append(np.median([np.median(dense[unit]) / np.median(sparse[unit]) for unit in units]))
    found = speed_up(list(dense), list(sparse), seed=0)
    tail = expanded_tail(20)
    np.testing.assert_allclose([found.low, found.high], np.quantile(naive, [tail, 1 - tail]), rtol=0.06)


def processes(
    draw: np.random.Generator, pairs: int, rounds: int, *, factor: float, start_spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Latencies [side][pair, round, run] in ms of a machine in use; the second side's true median is 1 / ``factor``.

    Shared by both sides: a drift of 10 % from the first round to the last, and bursts of other work (one round in five
    is 1.2 to 1.9 times as slow). Each side's own: a state of the process (addresses, caches) of ``start_spread``, a
    wobble of 1 % each round, 3 % on the slow side of every run, one run in fifty interrupted.
    """
    drift = 1 + 0.1 * np.arange(pairs * rounds).reshape(pairs, rounds, 1) / (pairs * rounds)
    burst = np.where(draw.random((pairs, rounds, 1)) < 0.2, draw.uniform(1.2, 1.9, (pairs, rounds, 1)), 1.0)
    sides = []
    for true_ms in (20.0, 20.0 / factor):
        state = np.exp(draw.normal(0, start_spread, (pairs, 1, 1)))
        wobble = np.exp(draw.normal(0, 0.01, (pairs, rounds, 1)))
        runs = 1 + draw.gamma(2, 0.015, (pairs, rounds, RUNS)) + (draw.random((pairs, rounds, RUNS)) < 0.02)
        sides.append(true_ms * drift * burst * state * wobble * runs)
    return sides[0], sides[1]


def verdicts_of_processes(pairs: int, rounds: int, factor: float, start_spread: float = 0.01) -> list[str]:
    draw = np.random.default_rng([pairs, rounds, round(1000 * factor)])
    made = (
        processes(draw, pairs, rounds, factor=factor, start_spread=start_spread) for _ in range(BENCHMARKS_OF_PROCESSES)
    )
    return [over_processes(*map(np.ndarray.tolist, sides), seed=0).verdict for sides in made]


BENCHMARKS_OF_PROCESSES = 100


@pytest.mark.parametrize(("pairs", "rounds"), [(1, 20), (3, 8), (6, 4), (10, 3)])
def test_equal_processes_are_called_different_at_most_five_times_in_a_hundred(pairs: int, rounds: int) -> None:
    found = verdicts_of_processes(pairs, rounds, 1.0)
    assert found.count("faster") + found.count("slower") <= 5


@pytest.mark.parametrize(("pairs", "rounds"), [(6, 4), (10, 3)])
def test_a_planted_slow_down_of_five_percent_is_found_95_times_in_a_hundred(pairs: int, rounds: int) -> None:
    assert verdicts_of_processes(pairs, rounds, 1 / 1.05).count("slower") >= 95


def test_rounds_of_one_process_alone_would_be_too_sure() -> None:
    """Why there is a margin: what differs between starts is in no round of one process."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(BENCHMARKS_OF_PROCESSES):
        first, second = processes(draw, 1, 20, factor=1.0, start_spread=0.01)
        found.append(speed_up(first[0].tolist(), second[0].tolist(), seed=0).verdict)
    assert found.count("faster") + found.count("slower") > 10


def test_from_six_processes_on_nothing_is_assumed_of_starts() -> None:
    same = [[[3.0]] * 2] * 6
    found = over_processes(same, same, seed=0)
    assert (found.low, found.factor, found.high, found.verdict) == (1, 1, 1, "equivalent")


def test_with_fewer_processes_the_interval_allows_for_starts() -> None:
    slow, fast = [[[6.0]] * 6], [[[2.0]] * 6]
    one = over_processes(slow, fast, seed=0)
    assert one.factor == 3
    assert one.high / one.factor == pytest.approx(np.exp(1.96 * 0.01 * np.sqrt(2)), rel=1e-4)
    assert one.low * one.high == pytest.approx(9)
    three = over_processes(slow * 3, fast * 3, seed=0)
    assert np.log(three.high / 3) == pytest.approx(np.log(one.high / 3) / np.sqrt(3))
    assert over_processes([[[2.0]] * 6], [[[2.0]] * 6], seed=0).verdict == "inconclusive"
