"""The alternation: every contestant runs a block, the order is drawn anew each round. Knows no engine."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ovit_deploy.errors import EngineError

BLOCK_MS = 500.0
MIN_ROUNDS = 6
MAX_RUNS = 200
MAX_ROUNDS_OF_ITERATIONS = 10
B = TypeVar("B")


@dataclass(frozen=True)
class Measured(Generic[B]):
    """What the blocks of every contestant gave, one a round, and why some of them stopped."""

    blocks: dict[str, list[B]]
    failures: dict[str, EngineError]


def plan_duration(
    estimates_ms: Mapping[str, float], duration_s: float, *, min_rounds: int = MIN_ROUNDS, block_ms: float = BLOCK_MS
) -> dict[str, list[int]]:
    """Runs of every contestant in every round, so that each is timed for about ``duration_s``.

    A block lasts about ``block_ms`` or one run of the slowest contestant, and has at most ``MAX_RUNS`` runs.

    Args:
        estimates_ms: what one run of each takes, in ms.
        duration_s: seconds a contestant.
        min_rounds: rounds, however long they take.
        block_ms: how long a block lasts.
    """
    block_ms = max(block_ms, *estimates_ms.values())
    num_rounds = max(min_rounds, round(1000 * duration_s / block_ms))
    return {
        name: [min(MAX_RUNS, max(1, round(block_ms / one_ms)))] * num_rounds for name, one_ms in estimates_ms.items()
    }


def plan_iterations(names: Sequence[str], iterations: int) -> dict[str, list[int]]:
    """Runs of every contestant in every round, ``iterations`` of each in all."""
    num_rounds = min(MAX_ROUNDS_OF_ITERATIONS, iterations)
    few, more = divmod(iterations, num_rounds)
    return {name: [few + (number < more) for number in range(num_rounds)] for name in names}


def interleave(
    contestants: Mapping[str, Callable[[int], B]],
    plan: Mapping[str, Sequence[int]],
    *,
    seed: int,
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> Measured[B]:
    """Run all contestants in turns; one that fails drops out, its earlier blocks are kept.

    Args:
        contestants: from a number of runs to what they gave.
        plan: how many runs in each round; as many rounds for all.
        seed: of the order in each round.
        on_round: told how many rounds of how many are done.
    """
    measured: Measured[B] = Measured({name: [] for name in contestants}, {})
    order, draw = list(contestants), random.Random(seed)
    num_rounds = len(next(iter(plan.values()), []))
    on_round(0, num_rounds)
    for number in range(num_rounds):
        draw.shuffle(order)
        for name in [name for name in order if name not in measured.failures]:
            try:
                measured.blocks[name].append(contestants[name](plan[name][number]))
            except EngineError as error:
                measured.failures[name] = error
        on_round(number + 1, num_rounds)
    return measured
