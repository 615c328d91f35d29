"""Pruning that follows training: scores of every step, weights that come back, and moments that are forgotten.

What movement pruning, AC/DC and RigL do between prunings; each function carries out one action of the timeline.
"""

import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ovit_deploy.finetune import masks as masking
from ovit_deploy.pruning.movement import add_movement
from ovit_deploy.pruning.rigl import exchange, loss_gradients
from ovit_deploy.recipe.timeline import Densify, Regrow, Score

if TYPE_CHECKING:
    from ovit_deploy.finetune.actions import State


def watch_movement(state: "State") -> None:
    """Before every optimizer step from here on, add its movement to whatever scores there are in ``state.scores``."""

    @torch.no_grad()
    def add(*_: Any) -> None:
        for scores in state.scores.values():
            for name, score in scores.items():
                parameter = state.model.get_parameter(name)
                if parameter.grad is not None:
                    add_movement(score, parameter, parameter.grad)

    state.optimizer.register_step_pre_hook(add)


def start_scores(action: Score, state: "State") -> None:
    """Scores of zero for the targets."""
    parameters = {name: state.model.get_parameter(name).detach() for name in state.targets[action.place]}
    state.scores[action.place] = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}


def densify(action: Densify, state: "State", epoch: float) -> None:
    """Give the targets the masks that they had when the modifier started; weights that come back start at zero."""
    names = state.targets[action.place]
    now = {name: state.masks.get(name, mask) for name, mask in masking.full(state.model, names).items()}
    before = state.before.setdefault(action.place, now)
    state.masks.update(before)
    if action.modifier.momentum_buffer_reset:
        forget(state.optimizer, [state.model.get_parameter(name) for name in names])
    state.report(f"epoch {epoch:g}: {action.modifier.short_name} lets {len(names)} tensors grow dense")


def regrow(action: Regrow, state: "State", epoch: float) -> dict[str, Any]:
    """Exchange kept weights for pruned ones; the line for the run's record."""
    started = time.perf_counter()
    present = {name: state.masks[name] for name in state.targets[action.place]}
    weights = {name: state.model.get_parameter(name).detach() for name in present}
    state.report(f"epoch {epoch:g}: {action.modifier.short_name} exchanges {action.fraction:.2%} of what is kept")
    # Other images at every update, as training has other batches.
    draw = sum(line["event"] == "regrow" for line in state.prunings) + 1
    gradients = loss_gradients(state.model, present, state.calibration(action.num_images, draw))
    new = exchange(weights, present, gradients, fraction=action.fraction, together=action.modifier.global_sparsity)
    for name, mask in new.items():
        weights[name].mul_(mask)
        if action.modifier.momentum_buffer_reset:
            forget_entries(state.optimizer, state.model.get_parameter(name), mask & ~present[name])
    state.masks.update(new)
    return {
        "event": "regrow",
        "epoch": epoch,
        "method": action.modifier.short_name,
        "sparsity": masking.sparsity(new),
        "predicted_loss_increase": None,
        "measured_loss_increase": None,
        "seconds": time.perf_counter() - started,
        "details": {"num_grown": sum(int((mask & ~present[name]).sum()) for name, mask in new.items())},
    }


def forget(optimizer: Optimizer, parameters: list[nn.Parameter]) -> None:
    """Drop all that an optimizer remembers of the parameters, its count of steps too: it starts as if with them."""
    for parameter in parameters:
        optimizer.state.pop(parameter, None)


def forget_entries(optimizer: Optimizer, parameter: nn.Parameter, where: Tensor) -> None:
    """Set an optimizer's moments to zero where a parameter's weights have just grown."""
    for moment in optimizer.state.get(parameter, {}).values():
        if isinstance(moment, Tensor) and moment.shape == parameter.shape:
            moment.masked_fill_(where, 0)
