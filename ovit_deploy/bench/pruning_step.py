"""The whole pruning step against its plain form: same model, same images, each in a process of its own, in turns."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from ovit_deploy import checkpoint
from ovit_deploy.bench import hardware, pruning_child
from ovit_deploy.bench.pruning_child import Form, Outcome, Task
from ovit_deploy.bench.suite import PrunerSuite, PruningStep
from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.allocation import Rule

MIN_SAME_FATE = 0.99
OURS, PLAIN = "oViT", "plain form"


@dataclass(frozen=True)
class StepRow:
    """One form of the pruning step, and what it took."""

    form: str
    outcome: Outcome


@dataclass(frozen=True)
class StepSummary:
    """How the two compare.

    Args:
        factor: wall time of the plain form over ours.
        memory_share: our peak memory over that of the plain form.
        same_fate: fraction of weights that both keep or both prune; the plain form's float32 decides near ties
            differently.
    """

    factor: float
    memory_share: float
    same_fate: float


@dataclass(frozen=True)
class StepResult:
    """The plain form, ours, and the comparison of the two."""

    rows: tuple[StepRow, StepRow]
    summary: StepSummary


def measure_step(
    suite: PrunerSuite, step: PruningStep, *, on_round: Callable[[int, int], None] = lambda done, total: None
) -> StepResult:
    """Prune in both forms and compare.

    Raises:
        PruningError: one of them fails, or their masks differ too much.
    """
    forms: tuple[Form, Form] = ("plain", "oViT")
    outcomes: list[Outcome] = []
    masks: list[dict[str, Tensor]] = []
    on_round(0, 2)
    with TemporaryDirectory(prefix="ovit-bench-") as folder:
        for form in forms:
            path = Path(folder) / f"{form}.safetensors"
            task = task_of(
                step, form, Path(folder), allocation="cumulative", block_size=suite.block_size, seed=suite.seed
            )
            outcomes.append(pruning_child.run(task, path))
            masks.append(checkpoint.load_tensors(path))
            on_round(len(outcomes), 2)
    plain, ours = outcomes
    summary = StepSummary(plain.seconds / ours.seconds, ours.peak_bytes / plain.peak_bytes, same_fate(*masks))
    if summary.same_fate < MIN_SAME_FATE:
        raise PruningError(
            f"the two forms agree on {summary.same_fate:.1%} of the weights only", "raise damping, or report it"
        )
    return StepResult((StepRow(PLAIN, plain), StepRow(OURS, ours)), summary)


def task_of(step: PruningStep, form: Form, folder: Path, *, allocation: Rule, block_size: int, seed: int) -> Task:
    """What a form is asked to do; it may spill to ``folder``."""
    return Task(
        form=form,
        model=step.model,
        model_kwargs=step.model_kwargs,
        layers=step.layers,
        num_grads=step.num_grads,
        block_size=block_size,
        damping=step.damping,
        allocation=allocation,
        sparsity=step.sparsity,
        batch_size=step.batch_size,
        memory_budget=round(step.memory_gb * 1e9),
        spill=str(folder) if step.spill else None,
        threads=step.threads or hardware.usable_cores(),
        seed=seed,
    )


def same_fate(expected: dict[str, Tensor], found: dict[str, Tensor]) -> float:
    """Fraction of weights that both keep or both prune."""
    assert expected.keys() == found.keys()
    same = sum(int((expected[name] == found[name]).sum()) for name in expected)
    return same / sum(mask.numel() for mask in expected.values())
