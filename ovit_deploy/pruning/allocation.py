"""How many weights to remove from which Fisher block, to an exact total.

Elimination gives each block b a curve: C_b(k) is the loss of removing its first k weights. Every rule here gives each
step of each curve a key that never falls along the curve, and takes the steps with the smallest keys of all blocks; of
equal keys the one that stands first goes first.

    cumulative  C_b(k), one threshold over all layers: the rule of the paper's code
    marginal    the largest C_b(j) - C_b(j-1) so far (as ExactOBS, arXiv 2208.11580): equalises the last step's loss
    hull        the slope of the lower convex hull of C_b: minimises sum_b C_b(k_b) - mu k_b. The mu of an exact total
                is a selection (the n-th smallest slope); the few weights left over between two corners of the
                hulls go by the marginal rule

or first shares out zeros to layers, and goes by the marginal rule across the blocks of each:

    uniform     every layer to the same sparsity
    erk         by a layer's shape: shares.py
    owl         by its outliers: owl.py

A layer's price divides its losses: mu is multiplied by it, so that weights which are worth more go first. (With
``cumulative`` it scales the threshold instead.)

Bounds on a layer's zeros hold exactly. Where a rule that compares losses oversteps some, the side that is overstepped
by more is put at its bounds, and the rule starts again on the other layers: for losses that rise faster and faster that
is the least total within bounds (Bitran & Hax 1981, Management Science 27(4)).

Shape suffixes: K Fisher blocks, B steps of a curve.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.shares import Bounds, check_total
from ovit_deploy.pruning.spread import LayerRule, Layers, layer_shares

Rule = Literal["hull", "marginal", "cumulative", "uniform", "erk", "owl"]
Counts = dict[str, Tensor]


@dataclass(frozen=True)
class Curve:
    """One weight's elimination.

    Args:
        rank_KB: The turn (from 1) at which each weight of a block goes; 0 where it is pruned already.
        marginal_KB: Loss of removing it at its turn.
    """

    rank_KB: Tensor
    marginal_KB: Tensor

    def steps(self) -> Tensor:
        """Marginal losses in the order of removal [K, B], infinite after the last."""
        steps_KB = torch.full(self.marginal_KB.shape, torch.inf, dtype=torch.float64, device=self.rank_KB.device)
        blocks, at = self.rank_KB.nonzero(as_tuple=True)
        steps_KB[blocks, self.rank_KB[blocks, at].long() - 1] = self.marginal_KB[blocks, at].double()
        return steps_KB

    def removable(self) -> int:
        """How many weights are not pruned yet."""
        return int((self.rank_KB > 0).sum())


Curves = Mapping[str, Curve]


def allocate(curves: Curves, num_zeros: int, *, rule: Rule = "hull", layers: Layers | None = None) -> Counts:
    """How many more weights each block loses, so that all layers together have exactly ``num_zeros`` zeros.

    Args:
        curves: Elimination of every layer.
        num_zeros: Zeros over all layers, those pruned already included; in units, as the bounds of ``layers``.
        rule: One of the rules above.
        layers: Bounds and prices, and what ``erk`` and ``owl`` look at.

    Returns:
        Removals per block [K] for each layer.

    Raises:
        PruningError: The rule is unknown, a price is not positive, or the number of zeros cannot be had.
    """
    layers = layers or Layers()
    check(curves, rule, layers.prices)
    sizes = {name: curve.rank_KB.numel() for name, curve in curves.items()}
    present = {name: sizes[name] - curve.removable() for name, curve in curves.items()}
    total, there = sum(sizes.values()), sum(present.values())
    if not there <= num_zeros <= total:
        raise PruningError(f"{num_zeros} zeros of {total} cannot be had: {there} are there already")
    if rule in get_args(LayerRule):
        shares = layer_shares(rule, sizes, present, num_zeros, layers)
        return join(
            smallest({name: KEYS["marginal"](curve.steps())}, shares[name] - present[name])
            for name, curve in curves.items()
        )
    bounds = layers.within(sizes, present)
    check_total(bounds, num_zeros)
    room = {name: (low - present[name], high - present[name]) for name, (low, high) in bounds.items()}
    priced = {name: curve.steps() / layers.prices.get(name, 1.0) for name, curve in curves.items()}
    return bounded(RULES[rule], priced, num_zeros - there, room)


def check(curves: Curves, rule: str, prices: Mapping[str, float]) -> None:
    """Refuse what no rule can follow."""
    if rule not in get_args(Rule):
        raise PruningError(f"unknown allocation {rule!r}", f"choose one of {', '.join(get_args(Rule))}")
    if prices and rule in get_args(LayerRule):
        raise PruningError(f"prices have no meaning with {rule} shares", "choose another allocation")
    for name, price in prices.items():
        if name not in curves:
            raise PruningError(f"{name} has a price but is not pruned")
        if not 0 < price < float("inf"):
            raise PruningError(f"the price of {name} is {price}, which is not a positive number")


Steps = Mapping[str, Tensor]


def bounded(rule: Callable[[Steps, int], Counts], steps: Steps, num_removed: int, room: Bounds) -> Counts:
    """Removals by ``rule``, at least and at most as many from each layer as ``room`` says."""
    fixed: Counts = {}
    free = dict(steps)
    while True:
        counts = rule(free, num_removed)
        asked = {name: int(counts_K.sum()) for name, counts_K in counts.items()}
        short = {name: room[name][0] - number for name, number in asked.items() if number < room[name][0]}
        over = {name: number - room[name][1] for name, number in asked.items() if number > room[name][1]}
        if not short and not over:
            return {name: fixed[name] if name in fixed else counts[name] for name in steps}
        side = 0 if sum(short.values()) >= sum(over.values()) else 1
        for name in over if side else short:
            number = room[name][side]
            fixed |= rule({name: free.pop(name)}, number)
            num_removed -= number


def join(parts: Iterable[Counts]) -> Counts:
    """Counts of all layers, from those of some."""
    return {name: counts_K for part in parts for name, counts_K in part.items()}


def smallest(keys: Mapping[str, Tensor], num_removed: int) -> Counts:
    """Steps with the ``num_removed`` smallest keys, counted per block. Keys never fall along a block."""
    if num_removed == 0:  # or no layers
        return {name: torch.zeros(len(keys_KB), dtype=torch.int64) for name, keys_KB in keys.items()}
    flat = torch.cat([keys_KB.flatten() for keys_KB in keys.values()]).cpu().numpy()
    flat.partition(num_removed - 1)  # in place: these are 8 bytes for every weight of the model
    threshold = float(flat[num_removed - 1])
    missing = num_removed - int((flat[: num_removed - 1] < threshold).sum())
    del flat
    counts: Counts = {}
    for name, keys_KB in keys.items():
        equal_K = (keys_KB == threshold).sum(dim=1)
        before_K = equal_K.cumsum(dim=0) - equal_K
        taken_K = torch.minimum(equal_K, (missing - before_K).clamp(min=0))
        missing -= int(taken_K.sum())
        counts[name] = (keys_KB < threshold).sum(dim=1) + taken_K
    return counts


def hull(steps: Mapping[str, Tensor], num_removed: int) -> Counts:
    """Whole runs of the hulls as far as they go, then single steps by the marginal rule."""
    from ovit_deploy.kernels.hull import hull_slopes  # imports numba, which takes a second

    slopes = {name: hull_slopes(steps_KB) for name, steps_KB in steps.items()}
    counts = smallest(slopes, num_removed)
    for name in steps:
        counts[name] = last_corner(slopes.pop(name), counts[name])
    missing = num_removed - sum(int(counts_K.sum()) for counts_K in counts.values())
    rest = {name: marginals_after(steps_KB, counts[name]) for name, steps_KB in steps.items()}
    return {name: counts[name] + more_K for name, more_K in smallest(rest, missing).items()}


def last_corner(slopes_KB: Tensor, counts_K: Tensor) -> Tensor:
    """``counts_K``, put back to the last corner of the hull where it ends inside a run."""
    padded = torch.nn.functional.pad(slopes_KB, (1, 1), value=torch.inf)
    next_K, last_K = (padded.gather(1, counts_K[:, None] + shift).squeeze(1) for shift in (1, 0))
    inside_K = (next_K == last_K) & (counts_K > 0) & (counts_K < slopes_KB.shape[1])
    return torch.where(inside_K, (slopes_KB < last_K[:, None]).sum(dim=1), counts_K)


def marginals_after(steps_KB: Tensor, counts_K: Tensor) -> Tensor:
    """Keys of the marginal rule for the steps after the first ``counts_K``; infinite for those taken already."""
    taken_KB = torch.arange(steps_KB.shape[1], device=steps_KB.device) < counts_K[:, None]
    return steps_KB.masked_fill(taken_KB, 0).cummax(dim=1).values.masked_fill(taken_KB, torch.inf)


KEYS: dict[str, Callable[[Tensor], Tensor]] = {
    "cumulative": lambda steps_KB: steps_KB.cumsum(dim=1),
    "marginal": lambda steps_KB: steps_KB.cummax(dim=1).values,
}


def by_key(key: Callable[[Tensor], Tensor]) -> Callable[[Steps, int], Counts]:
    """The rule that takes the steps with the smallest keys."""
    return lambda steps, num_removed: smallest({name: key(part) for name, part in steps.items()}, num_removed)


RULES: dict[str, Callable[[Steps, int], Counts]] = {"hull": hull} | {name: by_key(key) for name, key in KEYS.items()}
