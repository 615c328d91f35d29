"""Group OBS against its definition: the whole Fisher matrix, written out, in float64."""

import pytest
import torch
from torch import Tensor

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.group_budget import Offer, spend
from ovit_deploy.pruning.group_obs import Curve, compensated, damped, eliminate_groups

GROUPS = torch.tensor([[0, 1], [2, 3], [4, 5]])  # of seven columns; the last is a bias


def problem(outputs: int = 3, inputs: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    g_MOI = torch.randn(40, outputs, inputs, generator=draw, dtype=torch.float64)
    w_OI = torch.randn(outputs, inputs, generator=draw, dtype=torch.float64)
    return w_OI, (g_MOI.mT @ g_MOI).mean(0), (g_MOI @ g_MOI.mT).mean(0)


def obs(w_OI: Tensor, fisher: Tensor, columns: list[int]) -> tuple[float, Tensor]:
    """Loss and weights after all weights of some columns are removed: a quadratic, minimised over the others."""
    gone = torch.zeros_like(w_OI, dtype=torch.bool)
    gone[:, columns] = True
    q = gone.flatten()
    inverse = fisher.inverse()
    u = w_OI.flatten()[q]
    step = -inverse[:, q] @ torch.linalg.solve(inverse[q][:, q], u)
    return float(u @ torch.linalg.solve(inverse[q][:, q], u) / 2), w_OI + step.view_as(w_OI)


def test_curve_and_weights_are_those_of_obs_on_the_whole_matrix() -> None:
    w_OI, a_II, b_OO = problem()
    a_II = damped(a_II, 1e-2)
    fisher = torch.kron(b_OO, a_II) / b_OO.trace()
    curve = eliminate_groups(a_II, w_OI.T @ (b_OO / b_OO.trace()) @ w_OI, GROUPS, [1, 1])
    first = min(range(3), key=lambda group: obs(w_OI, fisher, GROUPS[group].tolist())[0])
    rest = [group for group in range(3) if group != first]
    both = {group: obs(w_OI, fisher, GROUPS[[first, group]].flatten().tolist())[0] for group in rest}
    second = min(rest, key=both.__getitem__)
    alone = obs(w_OI, fisher, GROUPS[first].tolist())[0]
    assert curve.steps == ((first,), (second,))
    assert curve.losses == pytest.approx((alone, both[second] - alone))
    kept = torch.tensor([c for c in range(7) if c not in GROUPS[[first, second]].flatten().tolist()])
    _, wanted = obs(w_OI, fisher, GROUPS[[first, second]].flatten().tolist())
    torch.testing.assert_close(compensated(w_OI, a_II, kept), wanted[:, kept])


def test_groups_that_go_together_cost_what_they_cost_together() -> None:
    w_OI, a_II, b_OO = problem()
    a_II, m_II = damped(a_II, 1e-2), w_OI.T @ (b_OO / b_OO.trace()) @ w_OI
    curve = eliminate_groups(a_II, m_II, GROUPS, [2])
    columns = GROUPS[list(curve.steps[0])].flatten().tolist()
    fisher = torch.kron(b_OO, a_II) / b_OO.trace()
    assert curve.losses == pytest.approx([obs(w_OI, fisher, columns)[0]])


def test_no_gradient_is_an_error() -> None:
    with pytest.raises(PruningError, match="all gradients are zero"):
        damped(torch.zeros(3, 3), 1e-2)


CHEAP, DEAR = Curve(((2,), (0,), (1,)), (0.1, 0.3, 0.5)), Curve(((1,), (0,)), (0.4, 0.2))


def test_the_budget_is_spent_where_it_costs_least_loss() -> None:
    offers = {"a": Offer(CHEAP, [10, 10, 10]), "b": Offer(DEAR, [20, 20])}
    # slopes: a .01 .03 .05, b .015 .015 (its hull)
    assert spend(offers, cost=100, budget=100) == {"a": 0, "b": 0}
    assert spend(offers, cost=100, budget=95) == {"a": 1, "b": 0}
    assert spend(offers, cost=100, budget=50) == {"a": 1, "b": 2}
    assert spend(offers, cost=100, budget=49) == {"a": 2, "b": 2}


def test_what_is_not_needed_is_given_back() -> None:
    little, much = Curve(((0,),), (1.0,)), Curve(((0,),), (11.0,))
    offers = {"a": Offer(little, [5]), "b": Offer(much, [50])}
    assert spend(offers, cost=60, budget=10) == {"a": 0, "b": 1}
    assert spend(offers, cost=60, budget=9) == {"a": 1, "b": 1}


def test_a_budget_below_the_floors_is_an_error() -> None:
    with pytest.raises(PruningError, match="leaves a cost of 30, the budget is 29"):
        spend({"a": Offer(CHEAP, [10, 10, 10]), "b": Offer(DEAR, [20, 20])}, cost=100, budget=29)
