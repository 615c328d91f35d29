"""What the dated actions of a recipe do to a model: each a short function of the state of training."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ovit_deploy.errors import NotFiniteError, PruningError, RecipeError
from ovit_deploy.finetune import dynamic
from ovit_deploy.finetune import masks as masking
from ovit_deploy.finetune.attempts import Attempt, attempted, undone_if_it_fails
from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.finetune.layer_thinning import thin_layers
from ovit_deploy.finetune.methods import MAGNITUDE_MODIFIERS, average_of, calibrated, method_of, sparseml_method_of
from ovit_deploy.finetune.thinning import recalibrate_batch_norms, thin
from ovit_deploy.finetune.tree import digest
from ovit_deploy.pruning import Calibration, FisherAverage, Method, Pruned, SparseMLMagnitude, apply
from ovit_deploy.pruning.healing import heal
from ovit_deploy.pruning.method import write
from ovit_deploy.pruning.ranks import ALONE, Ranks
from ovit_deploy.pruning.shelf import NOWHERE, Shelf
from ovit_deploy.pruning.spread import warn_of_collapse
from ovit_deploy.quantization import calibrate, freeze_batch_norm, freeze_observers, insert
from ovit_deploy.recipe.declaration import Compat
from ovit_deploy.recipe.modifiers import DistillationModifier, PerLayerDistillationModifier
from ovit_deploy.recipe.pruners import PruningModifier
from ovit_deploy.recipe.quantization import Quantization
from ovit_deploy.recipe.timeline import (
    Action,
    Densify,
    Distill,
    Freeze,
    HoldZeros,
    LogSparsity,
    MergeTokens,
    Prune,
    Quantize,
    Regrow,
    Score,
    SetParameters,
    Thin,
    ThinLayers,
    Train,
    WeightDecay,
)
from ovit_deploy.selectors import prunable
from ovit_deploy.structure import AnyStructure, blocks_of, merge_tokens


class Calibrate(Protocol):
    """Gives so many training images, the same for the same ``draw``."""

    def __call__(self, num_images: int, draw: int = 0, /) -> Calibration:
        """The images."""
        ...


@dataclass
class State:
    """Training as it stands: what the loop steps and the actions change."""

    model: nn.Module
    optimizer: Optimizer
    targets: dict[str, list[str]]  # parameter names by the place of their modifier
    calibration: Calibrate
    memory_budget: int | None
    report: Callable[[str], None]
    compat: Compat | None = None
    masks: masking.Masks = field(default_factory=dict)
    distillation: DistillationModifier | PerLayerDistillationModifier | None = None
    first_sparsity: dict[str, float] = field(default_factory=dict)  # by place, where a recipe says __FROM_PARAM__
    trainable: dict[str, dict[str, bool]] = field(default_factory=dict)  # by place, as it was before a modifier
    scores: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # by place: of movement, as it adds up
    before: dict[str, masking.Masks] = field(default_factory=dict)  # by place: masks when dense phases began
    prunings: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)  # for the record, until it is written
    teacher: nn.Module | None = None  # the dense model, where the recipe asks it
    scratch: Path | None = None  # where pruning may spill to
    averages: dict[str, FisherAverage] = field(default_factory=dict)  # by place, from one pruning to the next
    methods: dict[str, Method] = field(default_factory=dict)  # by place: instead of the modifier's own
    quantization: Quantization | None = None
    ranks: Ranks = ALONE
    shelf: Shelf = NOWHERE  # where a pruning keeps what it has so far
    at_once: int | None = None  # images, where memory ran out with training.batch_size
    structure: AnyStructure | None = None  # of a model that parts were removed from
    first_costs: dict[str, int] = field(default_factory=dict)  # by place: of the model when its removals began
    batch_norm_images: Calibration | None = None  # what batch norms are recalibrated on after a pruning


def carry_out(action: Action, state: State, epoch: float) -> None:
    """Do what ``action`` says."""
    match action:
        case Prune():
            _prune(action, state, epoch)
        case Thin():
            state.prunings.append(thin(action, state, epoch))
        case ThinLayers():
            state.prunings.append(thin_layers(action.modifier, state, epoch))
        case MergeTokens():
            _merge_tokens(action, state, epoch)
        case Score():
            dynamic.start_scores(action, state)
        case Densify():
            dynamic.densify(action, state, epoch)
        case Regrow():
            state.prunings.append(dynamic.regrow(action, state, epoch))
        case HoldZeros():
            held = masking.of_zeros(state.model, state.targets[action.place])
            state.masks.update({name: mask & state.masks.get(name, mask) for name, mask in held.items()})
        case WeightDecay():
            for group in state.optimizer.param_groups:
                everywhere = state.compat == "sparseml" or group["weight_decay"] > 0
                group["weight_decay"] = action.value if everywhere else 0.0
        case Distill():
            state.distillation = action.modifier
        case Train():
            _train(action, state)
        case SetParameters():
            _set_parameters(action, state)
        case LogSparsity():
            state.notes.append(_sparsities(state.model, epoch))
        case Quantize():
            _quantize(action, state, epoch)
        case Freeze(what="observers"):
            freeze_observers(state.model)
        case Freeze(what="batch norm"):
            freeze_batch_norm(state.model)


def _quantize(action: Quantize, state: State, epoch: float) -> None:
    modifier = action.modifier
    names = insert(state.model, modifier.quantization)
    state.quantization = modifier.quantization
    state.report(f"epoch {epoch:g}: quantize {len(names)} layers: {modifier.describe()}")
    if modifier.num_calibration_steps is not None:
        calibrate(state.model, state.calibration(64 * modifier.num_calibration_steps).batches())


def _merge_tokens(action: MergeTokens, state: State, epoch: float) -> None:
    merge_tokens(state.model, action.modifier.per_block(list(blocks_of(state.model))))
    state.report(f"epoch {epoch:g}: merge {action.modifier.describe()}")


def redo(action: Action, state: State) -> None:
    """What a checkpoint cannot hold of an action that was carried out before it: objects, but no tensors."""
    match action:
        case Distill() | Freeze() | MergeTokens():
            carry_out(action, state, 0.0)
        case Quantize():
            insert(state.model, action.modifier.quantization)
            state.quantization = action.modifier.quantization


def _train(action: Train, state: State) -> None:
    parameters = {name: state.model.get_parameter(name) for name in state.targets[action.place]}
    if not action.ends:
        state.trainable[action.place] = {name: parameter.requires_grad for name, parameter in parameters.items()}
    before = state.trainable[action.place]
    for name, parameter in parameters.items():
        parameter.requires_grad_(before[name] if action.ends else action.modifier.trainable)
        parameter.grad = None


@torch.no_grad()
def _set_parameters(action: SetParameters, state: State) -> None:
    for name in state.targets[action.place]:
        parameter = state.model.get_parameter(name)
        value = torch.tensor(action.value, dtype=parameter.dtype, device=parameter.device)
        if value.ndim and value.numel() != parameter.numel():
            raise RecipeError(
                f"{action.place}: {value.numel()} numbers for {name}, which has {parameter.numel()}",
                "give one number, or as many as it has",
            )
        parameter.copy_(value.reshape(parameter.shape) if value.ndim else value)
        if name in state.masks:
            parameter.mul_(state.masks[name])


def _sparsities(model: nn.Module, epoch: float) -> dict[str, Any]:
    """The share of zeros in every matrix, and in all of them, for the record."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    kept = masking.of_zeros(model, prunable(shapes))
    layers = {name: masking.sparsity({name: mask}) for name, mask in kept.items()}
    return {"event": "sparsity", "epoch": epoch, "sparsity": masking.sparsity(kept), "layers": layers}


def _asked(action: Prune, state: State) -> float:
    """The sparsity to prune to; from the targets' own zeros where the recipe says ``__FROM_PARAM__``."""
    modifier = action.modifier
    if not isinstance(modifier, PruningModifier) or not modifier.starts_from_own:
        return action.sparsity
    own = masking.of_zeros(state.model, state.targets[action.place])
    first = state.first_sparsity.setdefault(action.place, masking.sparsity(own))
    if first > modifier.final_sparsity:
        raise PruningError(
            f"{action.place}: {first:.2%} of the targets are zeros, final_sparsity is {modifier.final_sparsity:.2%}",
            "raise final_sparsity, or start from a denser checkpoint",
        )
    return first + action.grown * (modifier.final_sparsity - first)


def _method(action: Prune, state: State) -> Method:
    if action.place in state.methods:
        return state.methods[action.place]
    if state.compat == "sparseml" and isinstance(action.modifier, MAGNITUDE_MODIFIERS):
        return _as_sparseml(action, state)
    average = average_of(action.modifier, state.averages, action.place)
    scores = state.scores.get(action.place)
    return method_of(action.modifier, state.memory_budget, scratch=state.scratch, average=average, scores=scores)


def _as_sparseml(action: Prune, state: State) -> SparseMLMagnitude:
    """SparseML's masks; with ``__FROM_PARAM__`` each tensor comes from its own zeros."""
    assert isinstance(action.modifier, PruningModifier)
    names, final = state.targets[action.place], action.modifier.final_sparsity
    if not action.modifier.starts_from_own:
        return sparseml_method_of(action.modifier)
    for name in names:
        own = masking.sparsity(masking.of_zeros(state.model, [name]))
        state.first_sparsity.setdefault(f"{action.place} {name}", own)
    first = {name: state.first_sparsity[f"{action.place} {name}"] for name in names}
    wanted = {name: first[name] + action.grown * (final - first[name]) for name in names}
    return sparseml_method_of(action.modifier, wanted)


def _prune(action: Prune, state: State, epoch: float) -> None:
    names, sparsity = state.targets[action.place], _asked(action, state)
    state.report(f"epoch {epoch:g}: {action.modifier.short_name} to {sparsity:.2%} of {len(names)} tensors")
    started = time.perf_counter()
    if action.place in state.methods or state.ranks.size > 1:  # ranks would not try again together
        found = _attempt(Attempt(action.modifier), action, state, sparsity)
    else:
        found = attempted(lambda attempt: _attempt(attempt, action, state, sparsity), action.modifier, state.report)
    state.prunings.append(
        {
            "event": "prune",
            "epoch": epoch,
            "method": action.modifier.short_name,
            **found,
            "seconds": time.perf_counter() - started,
        }
    )


def _identity(attempt: Attempt, action: Prune, state: State, sparsity: float, present: masking.Masks) -> str:
    """Of an attempt at a pruning: equal ones come to the same answer."""
    what = (
        f"{action} to {sparsity!r} of {len(present)} within {state.memory_budget} on {state.ranks.size}, "
        f"draw {attempt.draw}, {attempt.at_once} at once"
    )
    return digest(state.model.state_dict() | {f"{name} {what}": mask for name, mask in present.items()})


def _attempt(attempt: Attempt, action: Prune, state: State, sparsity: float) -> dict[str, Any]:
    """Prune once, for the record; whatever is raised leaves weights, masks and averages as they were."""
    action = replace(action, modifier=attempt.modifier)
    names, modifier = state.targets[action.place], attempt.modifier
    present = {name: state.masks.get(name, mask) for name, mask in masking.full(state.model, names).items()}
    calibration = None
    if modifier.num_images:
        images = state.calibration(modifier.num_images, attempt.draw).at_most(attempt.at_once)
        calibration = calibrated(modifier, images, state.teacher)
        shelf = state.shelf.of(_identity(attempt, action, state, sparsity, present))
        calibration = replace(calibration, shelf=shelf)
    with undone_if_it_fails(state, names, action.place):
        pruned = _method(action, state).prune(
            state.model, present, sparsity=sparsity, calibration=calibration, report=state.report
        )
        loss_before = _loss_before(state.model, calibration, pruned)
        before = {name: state.model.get_parameter(name).detach().clone() for name in pruned.masks}
        apply(state.model, pruned)
        state.masks.update(pruned.masks)
        state.ranks.take_first([*state.model.parameters(), *state.masks.values()])
        warn_of_collapse(pruned.masks, state.report)
        afterwards = _heal(state, before, pruned.masks, modifier.heal_samples) if modifier.heal_samples else {}
        afterwards |= recalibrate_batch_norms(state)
        loss_after = _calibration_loss(state.model, calibration)
        increase = None if loss_before is None else _difference(loss_after, loss_before)
    return {
        "sparsity": masking.sparsity(pruned.masks),
        "predicted_loss_increase": pruned.predicted_loss,
        "measured_loss_increase": increase,
        "details": pruned.details | afterwards | attempt.details,
    }


def _heal(state: State, before: masking.Masks, masks: masking.Masks, num_samples: int) -> dict[str, Any]:
    """Refit what is kept to the outputs before the pruning; what that did, for the record."""
    healed = heal(
        state.model,
        before,
        masks,
        calibration=state.calibration(num_samples),
        memory_budget=state.memory_budget,
        report=state.report,
    )
    write(state.model, healed.weights)
    return {"healing": {"samples": num_samples, "before": healed.errors_before, "after": healed.errors_after}}


def _loss_before(model: nn.Module, calibration: Calibration | None, pruned: Pruned) -> float | None:
    """The calibration loss of a model that is not pruned yet; the method's own, where it took that of hard labels."""
    if calibration is not None and calibration.loss.labels == "hard" and pruned.loss_before is not None:
        return pruned.loss_before
    return _calibration_loss(model, calibration)


def _calibration_loss(model: nn.Module, calibration: Calibration | None) -> float | None:
    if calibration is None:
        return None
    ranks = calibration.ranks
    own = (batch for number, batch in enumerate(calibration.batches()) if ranks.owns(number))
    return evaluate(model, own, ranks).loss


def _difference(after: float | None, before: float) -> float:
    if after is None or after != after:
        raise NotFiniteError("the loss is not a number after pruning", "raise damp, or prune in smaller steps")
    return after - before
