"""Whole blocks: a pair of gates on the two branches of each, attention and MLP.

There are few gates, so their Fisher matrix is exact: F = 1/m sum_i c_i c_i^T, with c_i the derivatives of sample i's
loss by all gates. Group OBS removes pairs of gates at 1 and lets the others move; a gate other than 1 is folded into
the last layer of its branch.

Shape suffixes: M samples, L blocks, I = 2 L gates.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import measured_depth
from ovit_deploy.pruning.consumers import consumers_of
from ovit_deploy.pruning.group_budget import Offer, spend
from ovit_deploy.pruning.group_obs import Curve, compensated, damped, eliminate_groups
from ovit_deploy.pruning.method import Calibration
from ovit_deploy.pruning.structured import Budget, Removal, Settings, layer_of, new_values
from ovit_deploy.structure import Kept, blocks_of, everything, structure_of


def choose(model: nn.Module, settings: Settings, budget: Budget, calibration: Calibration | None) -> Removal:
    """Choose which blocks go; the model is left as it was found.

    Raises:
        ModelError: the model is not a VisionTransformer of timm.
        PruningError: the floor keeps more than the budget, or calibration has too few images.
    """
    numbers = list(blocks_of(model))
    names = [f"blocks.{number}.{layer}.weight" for number in numbers for layer in ("attn.proj", "mlp.fc2")]
    sizes = [1] * (len(numbers) - settings.min_blocks)
    if settings.saliency == "magnitude":
        scores = torch.stack([_squared_norm(block) for block in blocks_of(model).values()])
        return _removal(model, numbers, _ascending(scores, len(sizes)), budget)
    if calibration is None:
        raise PruningError(f"saliency {settings.saliency} needs calibration images", "give some")
    if settings.saliency == "loss":
        return measured_depth.choose(model, settings, budget, calibration)
    told = consumers_of(
        model, {name: layer_of(model, name).in_features for name in names}, calibration, settings.num_grads
    )
    f_II = _fisher([told.consumers[name].branch for name in names], calibration, settings.num_grads)
    details = {"calibration_loss": told.loss, "num_grads": told.num_grads}
    if settings.saliency == "taylor":
        scores = f_II.unflatten(1, (-1, 2)).sum(2).unflatten(0, (-1, 2)).sum(1).diagonal() / 2
        return _removal(model, numbers, _ascending(scores, len(sizes)), budget, details=details)
    f_II = damped(f_II, settings.damp)
    columns_GS = torch.arange(2 * len(numbers), device=f_II.device).view(-1, 2)
    curve = eliminate_groups(f_II, torch.ones_like(f_II), columns_GS, sizes)
    return _removal(model, numbers, curve, budget, f_II=f_II, details=details)


def _fisher(branches: list[list[Tensor]], calibration: Calibration, num_grads: int) -> Tensor:
    """Of all gates, from the gate gradients of each branch, over the samples of all ranks."""
    c_MI = torch.stack([torch.cat(branch) for branch in branches], 1).double()
    f_II = c_MI.T @ c_MI / num_grads
    calibration.ranks.reduce(f_II)
    return f_II


def _removal(
    model: nn.Module,
    numbers: list[int],
    curve: Curve,
    budget: Budget,
    *,
    f_II: Tensor | None = None,
    details: dict[str, float] | None = None,
) -> Removal:
    """Follow the curve to the budget; with a Fisher matrix, the gates that stay compensate."""
    prices, sizes = budget.prices, {block.number: block for block in structure_of(model).blocks}
    costs = [prices.whole_block(sizes[number]) for number in numbers]
    offer = Offer(curve, [sum(costs[group] for group in step) for step in curve.steps])
    num_steps = spend({"blocks": offer}, cost=budget.cost, budget=budget.budget)["blocks"]
    stays = [number not in curve.groups(num_steps) for number in range(len(numbers))]
    whole, left = everything(model), [number for number, stay in zip(numbers, stays, strict=True) if stay]
    kept = Kept({n: whole.heads[n] for n in left}, {n: whole.neurons[n] for n in left})
    if f_II is None:
        return Removal(kept, {}, details=details or {})
    index = torch.tensor(stays, device=f_II.device).repeat_interleave(2).nonzero().flatten()
    gates = compensated(f_II.new_ones(1, len(f_II)), f_II, index)[0].tolist()
    weights = _scaled(model, left, gates) if num_steps else {}
    return Removal(kept, weights, sum(curve.losses[:num_steps]), details or {})


def _scaled(model: nn.Module, numbers: list[int], gates: list[float]) -> dict[str, Tensor]:
    """The last layers of the branches, multiplied by their gates."""
    weights = {}
    names = [f"blocks.{number}.{layer}.weight" for number in numbers for layer in ("attn.proj", "mlp.fc2")]
    for name, gate in zip(names, gates, strict=True):
        layer = layer_of(model, name)
        w_OI = layer.weight.detach()
        if layer.bias is not None:
            w_OI = torch.cat([w_OI, layer.bias.detach()[:, None]], 1)
        weights |= new_values(name, layer, w_OI * gate)
    return weights


def _ascending(scores: Tensor, count: int) -> Curve:
    order = scores.sort(stable=True)
    return Curve(tuple((group,) for group in order.indices[:count].tolist()), tuple(order.values[:count].tolist()))


def _squared_norm(block: Any) -> Tensor:
    """Of the matrices of a block and their biases."""
    layers = (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2)
    return torch.stack([p.detach().double().square().sum() for layer in layers for p in layer.parameters()]).sum()
