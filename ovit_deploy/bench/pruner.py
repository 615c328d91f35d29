"""The elimination kernel against its plain form: batched torch that rewrites every inverse at every step.

Both prune the same random Fisher blocks to the end, in the same precision, in turns; then their order of
removal and their losses are compared, so that nobody is fast by being wrong.

Shape suffixes: K Fisher blocks, B weights in a block.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from ovit_deploy.bench import measure
from ovit_deploy.bench.suite import PrunerSuite
from ovit_deploy.errors import PruningError
from ovit_deploy.kernels.eliminate import Elimination, eliminate, reference

MIN_SAME_ORDER = 0.99
MAX_LOSS_DIFFERENCE = 1e-3
KERNEL, PLAIN = "compiled kernel", "batched torch"
Blocks = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class PrunerRow:
    """One form of elimination: every timed run in s, and their median."""

    form: str
    median_s: float
    runs_s: list[float]


@dataclass(frozen=True)
class Summary:
    """How many times faster the kernel is, and how well the two agree.

    Args:
        factor: median of the plain form over median of the kernel.
        same_order: fraction of weights that go at the same turn; float32 decides near ties differently.
        loss_difference: largest relative difference of a block's total loss.
    """

    factor: float
    same_order: float
    loss_difference: float


@dataclass(frozen=True)
class PrunerResult:
    """The plain form, the kernel, and the comparison of the two."""

    rows: tuple[PrunerRow, PrunerRow]
    summary: Summary


def measure_pruner(
    suite: PrunerSuite, *, on_round: Callable[[int, int], None] = lambda done, total: None
) -> PrunerResult:
    """Time both forms in turns on random blocks, after a warm-up that compiles the kernel.

    Raises:
        PruningError: the two do not find the same order or the same losses.
    """
    blocks = random_blocks(suite.blocks, suite.block_size, suite.seed)
    forms = {PLAIN: Form(plain, blocks), KERNEL: Form(eliminate, blocks)}
    for form in forms.values():
        form.run(*(part[:2] for part in blocks))
    num_rounds = max(suite.repeats, suite.plain_repeats)
    repeats = {PLAIN: suite.plain_repeats, KERNEL: suite.repeats}
    plan = {name: [int(number < repeats[name]) for number in range(num_rounds)] for name in forms}
    times = measure.interleave(
        {name: form.time_ms for name, form in forms.items()}, plan, seed=suite.seed, on_round=on_round
    ).blocks
    slow, fast = _row(PLAIN, times[PLAIN]), _row(KERNEL, times[KERNEL])
    agreement = compare(forms[PLAIN].found, forms[KERNEL].found)
    return PrunerResult((slow, fast), Summary(slow.median_s / fast.median_s, *agreement))


class Form:
    """One way to eliminate, the blocks it is timed on and what it found there last."""

    def __init__(self, run: Callable[..., Elimination], blocks: Blocks) -> None:
        self.run, self.blocks = run, blocks
        self.found: Elimination | None = None

    def time_ms(self, count: int) -> list[float]:
        """What each of ``count`` runs takes, in ms."""
        times_ms = []
        for _ in range(count):
            start = time.perf_counter_ns()
            self.found = self.run(*self.blocks)
            times_ms.append((time.perf_counter_ns() - start) / 1e6)
        return times_ms


def plain(w_KB: torch.Tensor, finv_KBB: torch.Tensor, active_KB: torch.Tensor) -> Elimination:
    """Batched torch in the precision of its inputs, until nothing is left."""
    return reference.eliminate(w_KB, finv_KBB, active_KB, active_KB.sum(dim=1), dtype=w_KB.dtype)


def random_blocks(num_blocks: int, block_size: int, seed: int) -> Blocks:
    """Weights, inverse Fisher blocks (symmetric, positive definite) and activity, float32."""
    draw = torch.Generator().manual_seed(seed)
    w_KB = torch.randn(num_blocks, block_size, generator=draw)
    root_KBB = torch.randn(num_blocks, block_size, block_size, generator=draw)
    finv_KBB = root_KBB @ root_KBB.mT / block_size + 0.1 * torch.eye(block_size)
    return w_KB, finv_KBB, torch.ones(num_blocks, block_size, dtype=torch.bool)


def compare(plain_form: Elimination | None, kernel: Elimination | None) -> tuple[float, float]:
    """Fraction of weights with the same turn, and the largest relative difference of a block's loss.

    Raises:
        PruningError: too little of the one, or too much of the other.
    """
    assert plain_form and kernel
    same_order = (plain_form.rank_KB == kernel.rank_KB).float().mean().item()
    expected_K, found_K = (one.marginal_KB.double().sum(dim=1) for one in (plain_form, kernel))
    difference = ((found_K - expected_K).abs() / expected_K).max().item()
    if same_order < MIN_SAME_ORDER or difference > MAX_LOSS_DIFFERENCE:
        raise PruningError(
            f"the kernel disagrees with batched torch: {same_order:.1%} of the weights go at the same turn, "
            f"losses differ by up to {difference:.1e}",
            "report it with your CPU and the version of numba",
        )
    return same_order, difference


def _row(name: str, rounds_ms: list[list[float]]) -> PrunerRow:
    runs_s = [run_ms / 1000 for round_ms in rounds_ms for run_ms in round_ms]
    return PrunerRow(name, median(runs_s), runs_s)
