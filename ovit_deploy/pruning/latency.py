"""Which sparsity each layer gets, so that the model runs within a given time at the least predicted loss.

A multiple-choice knapsack problem: of the options of every layer one is taken, times add up, losses add up. Solved by
dynamic programming over layers and discretised time, as in SPDY (Frantar & Alistarh, "SPDY: Accurate Pruning with
Speedup Guarantees", ICML 2022); where SPDY searches for the losses of options, these are the losses that elimination
predicts.

    best_l(t) = min over options o of layer l:  best_{l-1}(t - ticks(o)) + loss(o)

Times are rounded up to whole ticks above each layer's fastest option: a plan is never slower than it claims, and on
times that are whole ticks it is the best there is.

Shape suffixes: T ticks, O options of a layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ovit_deploy.errors import PruningError

NUM_TICKS = 10_000


@dataclass(frozen=True)
class Option:
    """A sparsity that a layer may have.

    Args:
        sparsity: Fraction of zeros.
        ms: What the layer takes then; only differences between options of a layer count.
        loss: Predicted increase of the loss.
    """

    sparsity: float
    ms: float
    loss: float


@dataclass(frozen=True)
class Plan:
    """A sparsity for each layer.

    Args:
        sparsities: By layer.
        ms: Of the whole model.
        loss: Predicted increase of the loss.
    """

    sparsities: dict[str, float]
    ms: float
    loss: float


Options = Mapping[str, Sequence[Option]]


def fastest_ms(options: Options, fixed_ms: float) -> float:
    """The least time that any plan takes."""
    return fixed_ms + sum(min(option.ms for option in own) for own in options.values())


def slowest_ms(options: Options, fixed_ms: float) -> float:
    """The most time that any plan takes."""
    return fixed_ms + sum(max(option.ms for option in own) for own in options.values())


def plans(
    options: Options, targets_ms: Sequence[float], *, fixed_ms: float = 0.0, num_ticks: int = NUM_TICKS
) -> list[Plan]:
    """For each target the plan with the least loss that keeps it; all from one pass of dynamic programming.

    Args:
        options: Of each layer, at least one.
        targets_ms: Of the whole model.
        fixed_ms: What the model takes beside its layers.
        num_ticks: Between the fastest plan and the slowest.

    Raises:
        PruningError: No plan is as fast as a target; says how fast the fastest is.
    """
    fastest, slowest = fastest_ms(options, fixed_ms), slowest_ms(options, fixed_ms)
    for target in targets_ms:
        if target < fastest:
            raise PruningError(
                f"{target:g} ms cannot be reached: the fastest that these layers can be made is {fastest:.4g} ms",
                "ask for more time, allow higher sparsities, or take another engine, INT8 or a smaller model",
            )
    tick_ms = (slowest - fastest) / num_ticks or 1.0
    ticks = {name: _ticks(own, tick_ms) for name, own in options.items()}
    all_ticks = num_ticks + len(options)  # rounding up costs each layer less than one
    taken = _solve(options, ticks, all_ticks)
    ends = [int((target - fastest) / tick_ms + 1e-9) if target < slowest else all_ticks for target in targets_ms]
    return [_plan(options, ticks, taken, end, fixed_ms) for end in ends]


def front(options: Options, *, fixed_ms: float = 0.0, num_points: int = 40) -> list[Plan]:
    """Plans none of which is both slower and lossier than another, from the fastest to the least loss."""
    targets = np.linspace(fastest_ms(options, fixed_ms), slowest_ms(options, fixed_ms), num_points)
    kept: list[Plan] = []
    for plan in sorted(plans(options, targets.tolist(), fixed_ms=fixed_ms), key=lambda plan: (plan.ms, plan.loss)):
        if not kept or plan.loss < kept[-1].loss:
            kept.append(plan)
    return kept


def _ticks(options: Sequence[Option], tick_ms: float) -> np.ndarray:
    """Whole ticks [O] by which each option is slower than the layer's fastest, rounded up."""
    ms_O = np.array([option.ms for option in options])
    return np.ceil((ms_O - ms_O.min()) / tick_ms - 1e-9).astype(np.int64)


def _solve(options: Options, ticks: Mapping[str, np.ndarray], num_ticks: int) -> dict[str, np.ndarray]:
    """The option [T] that each layer takes where so many ticks are left for it and the layers before."""
    best_T = np.zeros(num_ticks + 1)
    taken: dict[str, np.ndarray] = {}
    for name, own in options.items():
        totals_OT = np.full((len(own), num_ticks + 1), np.inf)
        for number, (option, slower) in enumerate(zip(own, ticks[name], strict=True)):
            if slower <= num_ticks:
                totals_OT[number, slower:] = best_T[: num_ticks + 1 - slower] + option.loss
        taken[name] = totals_OT.argmin(axis=0)
        best_T = totals_OT.min(axis=0)
    return taken


def _plan(
    options: Options, ticks: Mapping[str, np.ndarray], taken: Mapping[str, np.ndarray], left: int, fixed_ms: float
) -> Plan:
    """Back from the last layer to the first."""
    chosen: dict[str, Option] = {}
    for name in reversed(list(options)):
        number = int(taken[name][left])
        chosen[name] = options[name][number]
        left -= int(ticks[name][number])
    sparsities = {name: chosen[name].sparsity for name in options}
    ms = fixed_ms + sum(option.ms for option in chosen.values())
    return Plan(sparsities, ms, sum(option.loss for option in chosen.values()))
