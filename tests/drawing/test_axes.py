import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovit_deploy.drawing import axes

positive = st.floats(1e-6, 1e6)


@given(positive, positive)
def test_an_axis_holds_its_values_between_its_ticks(one: float, other: float) -> None:
    low, high = sorted((one, other))
    for axis in (axes.linear(low, high), axes.logarithmic(low, high), axes.fitting(low, high)):
        assert axis.low <= low <= high <= axis.high or axis.share(low) == pytest.approx(0, abs=1e-6)
        assert len(axis.ticks) >= 2
        assert all(0 <= axis.share(tick) <= 1 for tick in axis.ticks)
        assert -1e-6 <= axis.share(low) <= axis.share(high) <= 1 + 1e-6


@given(positive, positive)
def test_a_linear_axis_has_a_handful_of_ticks(one: float, other: float) -> None:
    assert len(axes.linear(*sorted((one, other))).ticks) <= 10


def test_ticks_are_round() -> None:
    assert axes.linear(88.1, 92.3).ticks == (88, 89, 90, 91, 92, 93)
    assert axes.logarithmic(0.72, 98).ticks == (0.5, 1, 2, 5, 10, 20, 50, 100)
    assert axes.linear(3, 97, least=0, most=100).ticks == (0, 20, 40, 60, 80, 100)
