"""How far each curve of groups is followed, so that what is left costs no more than a budget at the least loss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.group_obs import Curve


@dataclass(frozen=True)
class Offer:
    """A curve, and what each of its steps saves, in their order; nothing where an engine gains nothing by it."""

    curve: Curve
    saved: Sequence[int]

    def __post_init__(self) -> None:
        assert len(self.saved) == len(self.curve.steps) and min(self.saved, default=0) >= 0


def spend(offers: Mapping[str, Offer], *, cost: int, budget: int) -> dict[str, int]:
    """How many steps of each curve are taken, by its name, where what a step saves depends on no other curve.

    Args:
        offers: curves whose groups may go.
        cost: of everything now.
        budget: of what stays, in the same unit.

    Raises:
        PruningError: all that may go is not enough.
    """
    saved = {name: [0, *accumulate(offer.saved)] for name, offer in offers.items()}
    return spend_counting(
        offers, lambda taken: cost - sum(saved[name][steps] for name, steps in taken.items()), budget=budget
    )


def spend_counting(
    offers: Mapping[str, Offer], cost_of: Callable[[Mapping[str, int]], int], *, budget: int
) -> dict[str, int]:
    """How many steps of each curve are taken, by its name.

    Steps are taken by their loss for what they save, on the lower convex hull of each curve, until what is left costs
    at most ``budget``; then the dearest that turn out not to be needed are given back. The greedy solution of a
    knapsack.

    Args:
        offers: curves whose groups may go, and about what their steps save.
        cost_of: what is left costs, exactly, after so many steps of each.
        budget: of what stays.

    Raises:
        PruningError: all that may go is not enough.
    """
    names, taken, order = list(offers), dict.fromkeys(offers, 0), []
    for _, number, _step in _by_slope(offers):
        if cost_of(taken) <= budget:
            break
        order.append(names[number])
        taken[names[number]] += 1
    if cost_of(taken) > budget:
        raise PruningError(
            f"all that may be removed leaves a cost of {cost_of(taken):,}, the budget is {budget:,}",
            "raise what may stay (a lower final_sparsity), or lower the floors (min_heads, min_width, min_channels, "
            "min_blocks)",
        )
    closed: set[str] = set()
    for name in reversed(order):
        fewer = taken | {name: taken[name] - 1}
        if name not in closed and cost_of(fewer) <= budget:
            taken = fewer
        else:
            closed.add(name)
    return taken


def _by_slope(offers: Mapping[str, Offer]) -> list[tuple[float, int, int]]:
    """All steps, the cheapest first."""
    return sorted((slope, n, step) for n, offer in enumerate(offers.values()) for step, slope in _slopes(offer))


def _slopes(offer: Offer) -> list[tuple[int, float]]:
    """The loss of each step for each unit of cost that it saves, never falling along the curve.

    Steps are pooled with those before them until it is so: the slopes of the lower convex hull of loss over cost.
    """
    pools: list[tuple[float, int, int]] = []  # loss, saved, steps
    for loss, saved in zip(offer.curve.losses, offer.saved, strict=True):
        pool = (loss, saved, 1)
        while pools and _slope(*pools[-1][:2]) > _slope(*pool[:2]):
            before = pools.pop()
            pool = (before[0] + pool[0], before[1] + pool[1], before[2] + pool[2])
        pools.append(pool)
    return list(enumerate(_slope(loss, saved) for loss, saved, count in pools for _ in range(count)))


def _slope(loss: float, saved: int) -> float:
    return loss / saved if saved else inf
