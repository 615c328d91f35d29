"""How many weights to remove from which Fisher block, to an exact total.

Elimination gives each block b a curve: C_b(k) is the loss of removing its first k weights. Every rule here gives each
step of each curve a key that never falls along the curve, and takes the steps with the smallest keys of all blocks; of
equal keys the one that stands first goes first.

    cumulative  C_b(k), one threshold over all layers: the rule of the paper's code
    marginal    the largest C_b(j) - C_b(j-1) so far (as ExactOBS, arXiv 2208.11580): equalises the last step's loss
    hull        the slope of the lower convex hull of C_b: minimises sum_b C_b(k_b) - mu k_b. The mu of an exact total
                is a selection (the n-th smallest slope); the few weights left over between two corners of the
                hulls go by the marginal rule
    uniform     every layer to the same sparsity, and the marginal rule across the blocks of a layer

A layer's price divides its losses: mu is multiplied by it, so that weights which are worth more go first. (With
``cumulative`` it scales the threshold instead.)

Shape suffixes: K Fisher blocks, B steps of a curve.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.magnitude import uniform_shares

Rule = Literal["hull", "marginal", "cumulative", "uniform"]
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


def allocate(
    curves: Curves, num_zeros: int, *, rule: Rule = "hull", prices: Mapping[str, float] | None = None
) -> Counts:
    """How many more weights each block loses, so that all layers together have exactly ``num_zeros`` zeros.

    Args:
        curves: Elimination of every layer.
        num_zeros: Zeros over all layers, those pruned already included.
        rule: One of the rules above.
        prices: Worth of a removed weight of a layer; 1 where not given. Not for ``uniform``.

    Returns:
        Removals per block [K] for each layer.

    Raises:
        PruningError: The rule is unknown, a price is not positive, or the number of zeros cannot be had.
    """
    check(curves, rule, prices or {})
    total = sum(curve.rank_KB.numel() for curve in curves.values())
    removable = sum(curve.removable() for curve in curves.values())
    num_removed = num_zeros - (total - removable)
    if not 0 <= num_removed <= removable:
        raise PruningError(f"{num_zeros} zeros of {total} cannot be had: {total - removable} are there already")
    if rule == "uniform":
        return uniform(curves, num_zeros)
    steps = {name: curve.steps() / (prices or {}).get(name, 1.0) for name, curve in curves.items()}
    if rule == "hull":
        return hull(steps, num_removed)
    return smallest({name: KEYS[rule](steps_KB) for name, steps_KB in steps.items()}, num_removed)


KEYS: dict[str, Callable[[Tensor], Tensor]] = {
    "cumulative": lambda steps_KB: steps_KB.cumsum(dim=1),
    "marginal": lambda steps_KB: steps_KB.cummax(dim=1).values,
}


def check(curves: Curves, rule: str, prices: Mapping[str, float]) -> None:
    """Refuse what no rule can follow."""
    if rule not in get_args(Rule):
        raise PruningError(f"unknown allocation {rule!r}", f"choose one of {', '.join(get_args(Rule))}")
    if prices and rule == "uniform":
        raise PruningError("prices have no meaning at uniform sparsity", "choose another allocation")
    for name, price in prices.items():
        if name not in curves:
            raise PruningError(f"{name} has a price but is not pruned")
        if not 0 < price < float("inf"):
            raise PruningError(f"the price of {name} is {price}, which is not a positive number")


def smallest(keys: Mapping[str, Tensor], num_removed: int) -> Counts:
    """Steps with the ``num_removed`` smallest keys, counted per block. Keys never fall along a block."""
    if num_removed == 0:
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


def uniform(curves: Curves, num_zeros: int) -> Counts:
    """The same sparsity in every layer, rounded so that the total is exact."""
    shares = uniform_shares({name: curve.rank_KB.numel() for name, curve in curves.items()}, num_zeros)
    counts: Counts = {}
    for name, curve in curves.items():
        present = curve.rank_KB.numel() - curve.removable()
        if shares[name] < present:
            raise PruningError(
                f"{name} has {present} zeros already, uniform sparsity wants {shares[name]}",
                "ask for more sparsity, or choose another allocation",
            )
        counts |= smallest({name: KEYS["marginal"](curve.steps())}, shares[name] - present)
    return counts
