"""Parts of the model removed in the middle of training, and all that goes with its parameters cut alike.

The model stays the same object, its smaller parameters are new ones: the optimizer gets them in place of the old, with
the moments of what is left; masks, scores and targets follow. The average of the weights begins anew (ema.py), as after
any pruning; the teacher stays the dense model.
"""

import time
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.pruning import Calibration, depth, head_width
from ovit_deploy.pruning.method import write
from ovit_deploy.pruning.structured import Budget, Removal, Settings
from ovit_deploy.recipe.structured import Latency, StructuredModifier
from ovit_deploy.recipe.timeline import Thin
from ovit_deploy.structure import (
    Cut,
    Prices,
    Structure,
    Times,
    counting,
    cut,
    macs,
    parameters,
    remove,
    shrink,
    structure_of,
)

if TYPE_CHECKING:
    from ovit_deploy.finetune.actions import State

Cuts = Mapping[str, Cut | None]
_NS = 1_000_000  # in a millisecond


def thin(action: Thin, state: "State", epoch: float) -> dict[str, Any]:
    """Choose and remove; the line for the run's record.

    Raises:
        ModelError: the model is not one that we can cut.
        PruningError: the budget cannot be met.
    """
    modifier, started = action.modifier, time.perf_counter()
    state.report(f"epoch {epoch:g}: remove {modifier.describe(action.sparsity)}")
    costs, structure = prices_of(state.model, modifier), structure_of(state.model)
    now = costs.of(structure)
    first = state.first_costs.setdefault(action.place, now)
    calibration = state.calibration(modifier.num_images) if modifier.num_images else None
    removal = choose(state.model, modifier, Budget(costs, now, round(first * (1 - action.sparsity))), calibration)
    apply(removal, state)
    after = None if calibration is None else evaluate(state.model, calibration.batches()).loss
    left = structure_of(state.model)
    state.report(
        f"epoch {epoch:g}: {len(left.blocks)} blocks, {left.num_heads} heads and {left.num_neurons} neurons are left, "
        f"{costs.of(left) / first:.2%} of the {modifier.kind}"
    )
    return {
        "event": "thin",
        "epoch": epoch,
        "method": modifier.short_name,
        "sparsity": 1 - costs.of(left) / first,
        "predicted_loss_increase": removal.predicted_loss,
        "measured_loss_increase": None if after is None else after - removal.details["calibration_loss"],
        "seconds": time.perf_counter() - started,
        "details": removal.details
        | {"budget": modifier.kind, "cost_before": now, "cost_after": costs.of(left), "structure": left.as_dict()},
    }


def choose(model: nn.Module, modifier: StructuredModifier, budget: Budget, calibration: Calibration | None) -> Removal:
    """What a modifier removes of the model to meet a budget; the model is left as it was found."""
    known = {field.name for field in fields(Settings)}
    settings = Settings(**{key: value for key, value in modifier.model_dump().items() if key in known})
    if "blocks" in modifier.parts:
        return depth.choose(model, settings, budget, calibration)
    parts: list[head_width.Part] = [part for part in modifier.parts if part != "blocks"]
    return head_width.choose(model, parts, settings, budget, calibration)


def prices_of(model: nn.Module, modifier: StructuredModifier) -> Prices:
    """Prices by which a modifier counts."""
    match modifier.kind:
        case "latency":
            assert modifier.latency is not None
            return times_of(modifier.latency)
        case "flops":
            return macs(model)
        case "parameters":
            return parameters(model)
        case "heads":
            return counting(parameters(model), head=1)
        case "neurons":
            return counting(parameters(model), neuron=1)
        case "blocks":
            return counting(parameters(model), block=1)


def times_of(latency: Latency) -> Times:
    """Measured milliseconds as whole nanoseconds."""

    def curve(ms: Mapping[int, float]) -> dict[int, int]:
        return {count: round(_NS * one) for count, one in ms.items()}

    return Times(
        curve(latency.heads_ms), curve(latency.width_ms), round(_NS * latency.block_ms), round(_NS * latency.rest_ms)
    )


def apply(removal: Removal, state: "State") -> None:
    """Let the rest compensate, remove, and cut all that goes with the parameters; zeros that masks hold stay zeros."""
    write(state.model, {name: value * state.masks.get(name, 1) for name, value in removal.weights.items()})
    before = dict(state.model.named_parameters())
    _follow(state, before, remove(state.model, removal.kept))


def put_back(state: "State", structure: Structure) -> None:
    """Bring a run that is resumed to the structure of its checkpoint, whose tensors are loaded afterwards."""
    before = dict(state.model.named_parameters())
    _follow(state, before, shrink(state.model, structure))


def _follow(state: "State", before: Mapping[str, nn.Parameter], cuts: Cuts) -> None:
    gone = {name for name, how in cuts.items() if how is None}
    for name in cut_optimizer(state.optimizer, before, dict(state.model.named_parameters()), cuts):
        state.report(f"{name}: the optimizer's memory of it has another shape than it, and begins anew")
    for tensors in (state.masks, *state.scores.values(), *state.before.values()):
        _cut_tensors(tensors, cuts)
    for names in state.targets.values():
        names[:] = [name for name in names if name not in gone]
    for trainable in state.trainable.values():
        for name in gone & trainable.keys():
            del trainable[name]
    if state.averages:
        state.report("the averages of Fisher matrices begin anew, for matrices of other shapes")
        state.averages.clear()
    state.structure = structure_of(state.model)


def _cut_tensors(tensors: dict[str, Tensor], cuts: Cuts) -> None:
    """Masks or scores by the name of their parameter, in place: others hold the mapping."""
    for name in cuts.keys() & tensors.keys():
        how = cuts[name]
        if how is None:
            del tensors[name]
        else:
            tensors[name] = cut(tensors[name], how)


def cut_optimizer(
    optimizer: Optimizer, before: Mapping[str, nn.Parameter], after: Mapping[str, nn.Parameter], cuts: Cuts
) -> list[str]:
    """Give an optimizer the new parameters in place of the old, with its memory of what is left.

    Returns:
        Parameters whose memory is no tensor of their shape (factored moments) and was dropped.
    """
    successors = {id(before[name]): after.get(name) for name in cuts}
    for group in optimizer.param_groups:
        group["params"] = [new for old in group["params"] if (new := successors.get(id(old), old)) is not None]
    forgotten = []
    for name, how in cuts.items():
        old, memory = before[name], optimizer.state.pop(before[name], None)
        if memory is None or how is None:
            continue
        if any(isinstance(value, Tensor) and value.ndim and value.shape != old.shape for value in memory.values()):
            forgotten += [name] if how else []
            memory = {} if how else memory
        cut_memory = {
            key: cut(value, how) if isinstance(value, Tensor) and value.shape == old.shape else value
            for key, value in memory.items()
        }
        if cut_memory:
            optimizer.state[after[name]] = cut_memory
    return forgotten
