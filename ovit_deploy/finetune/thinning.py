"""Parts of the model removed in the middle of training, and all that goes with its parameters cut alike.

The model stays the same object, its smaller parameters are new ones: the optimizer gets them in place of the old, with
the moments of what is left; masks, scores and targets follow. The average of the weights begins anew (ema.py), as after
any pruning; the teacher stays the dense model.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.optim import Optimizer

from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.pruning import Calibration, channels, depth, head_width
from ovit_deploy.pruning.batch_norm import recalibrate
from ovit_deploy.pruning.method import write
from ovit_deploy.pruning.structured import Budget, Removal, Settings
from ovit_deploy.recipe.structured import (
    ChannelPruningModifier,
    EmbeddingPruningModifier,
    Latency,
    StructuredModifier,
)
from ovit_deploy.recipe.timeline import Thin
from ovit_deploy.structure import (
    AnyStructure,
    Cuts,
    Kept,
    Prices,
    Shapes,
    Times,
    counting,
    cut,
    macs,
    parameters,
    rebuild,
    remove,
    structure_of,
)
from ovit_deploy.structure.bill import bill_of
from ovit_deploy.structure.channels import shapes_of
from ovit_deploy.structure.cutting import carry_out
from ovit_deploy.structure.dependencies import groups_of
from ovit_deploy.structure.stream import stream_of

if TYPE_CHECKING:
    from ovit_deploy.finetune.actions import State

_NS = 1_000_000  # in a millisecond


def thin(action: Thin, state: "State", epoch: float) -> dict[str, Any]:
    """Choose and remove; the line for the run's record.

    Raises:
        ModelError: the model is not one that we can cut.
        PruningError: the budget cannot be met.
    """
    modifier, started = action.modifier, time.perf_counter()
    state.report(f"epoch {epoch:g}: remove {modifier.describe(action.sparsity)}")
    if isinstance(modifier, ChannelPruningModifier | EmbeddingPruningModifier):
        counted = _of_channels(state.model, modifier)
    else:
        counted = _of_blocks(state.model, modifier)
    now = counted.cost()
    first = state.first_costs.setdefault(action.place, now)
    calibration = state.calibration(modifier.num_images) if modifier.num_images else None
    removal = counted.choose(round(first * (1 - action.sparsity)), calibration)
    apply(removal, state)
    renewed = recalibrate_batch_norms(state)
    after = None if calibration is None else evaluate(state.model, calibration.batches()).loss
    left, cost = state.structure, counted.cost()
    assert left is not None
    state.report(f"epoch {epoch:g}: {counted.left()} are left, {cost / first:.2%} of the {modifier.kind}")
    return {
        "event": "thin",
        "epoch": epoch,
        "method": modifier.short_name,
        "sparsity": 1 - cost / first,
        "predicted_loss_increase": removal.predicted_loss,
        "measured_loss_increase": None if after is None else after - removal.details["calibration_loss"],
        "seconds": time.perf_counter() - started,
        "details": removal.details
        | {"budget": modifier.kind, "cost_before": now, "cost_after": cost, "structure": left.as_dict()}
        | renewed,
    }


@dataclass(frozen=True)
class _Counted:
    """How a model's parts are counted and chosen: what it costs at present, what goes for a budget, what is left."""

    cost: Callable[[], int]
    choose: Callable[[int, Calibration | None], Removal]
    left: Callable[[], str]


def _of_blocks(model: nn.Module, modifier: StructuredModifier) -> _Counted:
    prices = prices_of(model, modifier)

    def cost() -> int:
        return prices.of(structure_of(model))

    def chosen(budget: int, calibration: Calibration | None) -> Removal:
        return choose(model, modifier, Budget(prices, cost(), budget), calibration)

    def left() -> str:
        structure = structure_of(model)
        return f"{len(structure.blocks)} blocks, {structure.num_heads} heads and {structure.num_neurons} neurons"

    return _Counted(cost, chosen, left)


def _of_channels(model: nn.Module, modifier: ChannelPruningModifier | EmbeddingPruningModifier) -> _Counted:
    settings = settings_of(modifier)
    if isinstance(modifier, EmbeddingPruningModifier):
        groups, settings = (stream_of(model),), replace(settings, min_channels=modifier.min_width)
    else:
        groups = groups_of(model)
    bill = bill_of(model, groups, modifier.budget)
    whole = {group.name: group.count for group in groups}
    kept = dict(whole)

    def cost() -> int:
        return bill.of({name: whole[name] - count for name, count in kept.items()})

    def chosen(budget: int, calibration: Calibration | None) -> Removal:
        removal = channels.choose(model, settings, bill, budget, calibration)
        kept.update(removal.details["channels"])
        return removal

    return _Counted(cost, chosen, lambda: f"{sum(kept.values())} of {sum(whole.values())} channels")


def settings_of(modifier: StructuredModifier) -> Settings:
    """What a modifier says of the choice."""
    known = {field.name for field in fields(Settings)}
    return Settings(**{key: value for key, value in modifier.model_dump().items() if key in known})


def choose(model: nn.Module, modifier: StructuredModifier, budget: Budget, calibration: Calibration | None) -> Removal:
    """What a modifier removes of the model to meet a budget; the model is left as it was found."""
    settings = settings_of(modifier)
    if "blocks" in modifier.parts:
        return depth.choose(model, settings, budget, calibration)
    parts: list[head_width.Part] = [part for part in modifier.parts if part in ("heads", "neurons")]
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
    raise AssertionError(f"{modifier.kind} are not counted by prices")


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
    if isinstance(removal.kept, Kept):
        _follow(state, before, remove(state.model, removal.kept))
        state.structure = structure_of(state.model)
    else:
        carry_out(state.model, removal.kept)
        _follow(state, before, removal.kept)
        is_vit = isinstance(state.model, VisionTransformer)
        state.structure = structure_of(state.model) if is_vit else _with(state, removal.kept)


def _with(state: "State", cuts: Cuts) -> Shapes:
    """The structure, with the tensors that were cut now."""
    shapes = shapes_of(state.model)
    known = state.structure.of if isinstance(state.structure, Shapes) else {}
    return Shapes({name: shapes[name] for name in shapes if name in known or name in cuts})


def recalibrate_batch_norms(state: "State") -> dict[str, Any]:
    """Statistics of batch norms as the pruned model has them; SparseML leaves them to training."""
    if state.batch_norm_images is None or state.compat == "sparseml":
        return {}
    renewed = recalibrate(state.model, state.batch_norm_images.batches())
    return {"batch_norms_recalibrated": renewed} if renewed else {}


def put_back(state: "State", structure: AnyStructure) -> None:
    """Bring a run that is resumed to the structure of its checkpoint, whose tensors are loaded afterwards."""
    before = dict(state.model.named_parameters())
    _follow(state, before, rebuild(state.model, structure))
    state.structure = structure


def _follow(state: "State", before: Mapping[str, nn.Parameter], cuts: Cuts) -> None:
    cuts = {name: how for name, how in cuts.items() if name in before}  # of parameters; buffers have no followers
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
