import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovit_deploy.kernels.hull import hull_slopes


def lower_hull(losses: list[float]) -> list[float]:
    """Slopes of the hull of C(0) = 0, C(1), ...: from a corner, the flattest way on to any later point."""
    curve = [0.0]
    for loss in losses:
        curve.append(curve[-1] + loss)
    slopes: list[float] = []
    while len(slopes) < len(losses):
        at = len(slopes)
        slope, end = min(((curve[k] - curve[at]) / (k - at), -k) for k in range(at + 1, len(curve)))
        slopes += [slope] * (-end - at)
    return slopes


@settings(max_examples=50, deadline=None)
@given(losses=st.lists(st.floats(0.0, 10.0, width=16), min_size=1, max_size=30))
def test_slopes_are_those_of_the_lower_convex_hull(losses):
    expected = torch.tensor(lower_hull(losses), dtype=torch.float64)
    torch.testing.assert_close(hull_slopes(torch.tensor([losses]))[0], expected)


def test_slopes_are_infinite_after_the_end_of_a_curve():
    slopes_KB = hull_slopes(torch.tensor([[2.0, 1.0, torch.inf], [torch.inf, torch.inf, torch.inf]]))
    assert slopes_KB.tolist() == [[1.5, 1.5, torch.inf], [torch.inf, torch.inf, torch.inf]]
