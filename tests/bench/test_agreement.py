import numpy as np
import pytest

from ovit_deploy.bench.agreement import allowed, compare


def test_a_nan_is_an_infinite_difference() -> None:
    assert compare(np.array([[np.nan, 1.0]]), np.array([[0.0, 1.0]])).max_abs_difference == np.inf


def test_top_1_agreement_is_the_fraction_of_images() -> None:
    found = compare(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert found.top1 == 0.5
    assert found.max_abs_difference == 1


def test_only_an_engine_that_rounds_may_be_off_by_more_and_never_by_less() -> None:
    assert allowed(np.array([[8.0, -12.0]]), rounds=False) == 0.01
    assert allowed(np.array([[8.0, -12.0]]), rounds=True) == pytest.approx(1.2)
    assert allowed(np.array([[0.001]]), rounds=True) == 0.01
