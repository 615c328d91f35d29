"""Peak memory of the whole pruning step at several budgets, each in a process of its own.

The budget is for curvature and the work on it. The model, and the activations of one batch (measured without forming
any gradient), are not counted in it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ovit_deploy.bench import pruning_child
from ovit_deploy.bench.pruning_child import Outcome
from ovit_deploy.bench.pruning_step import task_of
from ovit_deploy.bench.suite import PrunerMemorySuite

ALLOWANCE = 1.1


@dataclass(frozen=True)
class MemoryRow:
    """One budget, and what the pruning step took.

    Args:
        budget: bytes.
        used: most resident memory in bytes, over the model's and one batch's activations.
        within: whether that is at most the budget and a tenth.
        outcome: all that was measured.
    """

    budget: int
    used: int
    within: bool
    outcome: Outcome


def measure_memory(
    suite: PrunerMemorySuite, *, on_round: Callable[[int, int], None] = lambda done, total: None
) -> list[MemoryRow]:
    """Prune once with every budget.

    Raises:
        PruningError: a budget does not hold one Fisher block.
    """
    rows: list[MemoryRow] = []
    on_round(0, len(suite.budgets_gb))
    with TemporaryDirectory(prefix="ovit-bench-") as folder:
        task = task_of(
            suite.step, "oViT", Path(folder), allocation="hull", block_size=suite.block_size, seed=suite.seed
        )
        for budget_gb in suite.budgets_gb:
            budget = round(budget_gb * 1e9)
            outcome = pruning_child.run(replace(task, memory_budget=budget), Path(folder) / "masks.safetensors")
            used = outcome.peak_bytes - outcome.activation_bytes
            rows.append(MemoryRow(budget, used, used <= ALLOWANCE * budget, outcome))
            on_round(len(rows), len(suite.budgets_gb))
    return rows
