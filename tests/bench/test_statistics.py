from fractions import Fraction
from math import comb
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovit_deploy.bench.statistics import mcnemar, summarize


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


def test_runs_that_overlap_are_counted_over_the_time_that_passed() -> None:
    assert summarize([[100.0] * 4], batch_size=3, seconds=0.2).images_per_s == pytest.approx(60)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_tail_in_exact_fractions(first: int, second: int) -> None:
    total = first + second
    tail = sum(Fraction(comb(total, k), 2**total) for k in range(min(first, second) + 1))
    assert mcnemar(first, second) == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-9)


def test_mcnemar_of_the_worked_example() -> None:
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)  # 2 (1 + 10) / 2^10
    assert mcnemar(9, 1) == mcnemar(1, 9)
    assert mcnemar(0, 0) == 1


def test_mcnemar_holds_for_large_test_sets() -> None:
    z = (3000 - 2800 - 1) / np.sqrt(5800)
    assert mcnemar(2800, 3000) == pytest.approx(2 * (1 - NormalDist().cdf(z)), rel=0.02)
