import numpy as np
import pytest

from ovit_deploy.bench.statistics import speed_up, summarize


def test_a_summary_is_over_all_runs_of_all_blocks() -> None:
    blocks_ms = [[1.0, 2.0, 9.0], [4.0, 5.0]]
    found = summarize(blocks_ms, batch_size=2)
    runs_ms = np.concatenate(blocks_ms)
    assert found.num_runs == 5
    assert found.median_ms == np.median(runs_ms)
    assert found.p90_ms == pytest.approx(np.quantile(runs_ms, 0.9))
    assert found.p99_ms == pytest.approx(np.quantile(runs_ms, 0.99))
    assert found.min_ms == 1
    assert found.images_per_s == pytest.approx(2 * 5 / 0.021)


def test_a_speed_up_is_the_ratio_of_medians() -> None:
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


def test_the_interval_is_that_of_a_plain_bootstrap_over_rounds() -> None:
    draw = np.random.default_rng(3)
    dense, sparse = draw.gamma(9, size=(20, 4)), draw.gamma(4, size=(20, 4))
    naive = []
    for _ in range(2000):
        rounds = [int(draw.integers(20)) for _ in range(20)]
        naive.append(np.median(dense[rounds]) / np.median(sparse[rounds]))
    found = speed_up(list(dense), list(sparse), seed=0)
    np.testing.assert_allclose([found.low, found.high], np.quantile(naive, [0.025, 0.975]), rtol=0.06)
