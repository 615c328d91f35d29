"""Heads and neurons: groups of input columns of the layers that they feed, ``attn.proj`` and ``mlp.fc2``.

Without its columns nothing else of a head or a neuron matters, so the loss of its columns is all of its loss; the
columns that stay, and the bias, make up for those that go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import sub
from typing import Literal

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.consumers import Consumer, consumers_of
from ovit_deploy.pruning.group_budget import Offer, spend
from ovit_deploy.pruning.group_obs import Curve, compensated, damped, eliminate_groups
from ovit_deploy.pruning.method import Calibration
from ovit_deploy.pruning.structured import Budget, Removal, Settings, layer_of, new_values
from ovit_deploy.structure import Kept, Prices, blocks_of, everything

Part = Literal["heads", "neurons"]


@dataclass(frozen=True)
class _Layer:
    """The groups of one consumer."""

    part: Part
    number: int
    num_groups: int
    group: int

    @property
    def name(self) -> str:
        """Of its weight."""
        return f"blocks.{self.number}.{'attn.proj' if self.part == 'heads' else 'mlp.fc2'}.weight"

    def columns(self) -> Tensor:
        """Of each group [G, S]."""
        return torch.arange(self.num_groups * self.group).view(self.num_groups, self.group)

    def sizes(self, settings: Settings) -> list[int]:
        """How many groups go at each step: one head, or as many neurons as leave a width that is allowed."""
        if self.part == "heads":
            return [1] * (self.num_groups - settings.min_heads)
        each = settings.multiple_of
        first, floor = self.num_groups % each, -(-settings.min_width // each) * each
        steps = (self.num_groups - first - floor) // each
        return [] if steps < 0 else [*([first] if first else []), *[each] * steps]


def choose(
    model: nn.Module, parts: Sequence[Part], settings: Settings, budget: Budget, calibration: Calibration | None
) -> Removal:
    """Choose which heads and neurons go; the model is left as it was found.

    Raises:
        ModelError: the model is not a VisionTransformer of timm.
        PruningError: the floors keep more than the budget, or calibration has too few images.
    """
    layers = [layer for part in parts for layer in _layers(model, part)]
    told = None
    if settings.saliency != "magnitude":
        if calibration is None:
            raise PruningError(f"saliency {settings.saliency} needs calibration images", "give some")
        told = consumers_of(model, {layer.name: layer.group for layer in layers}, calibration, settings.num_grads)
    consumers = told.consumers if told else {}
    offers = {layer.name: _offer(_curve(model, layer, settings, consumers), layer, budget.prices) for layer in layers}
    taken = spend(offers, cost=budget.cost, budget=budget.budget)
    gone = {(layer.part, layer.number): offers[layer.name].curve.groups(taken[layer.name]) for layer in layers}
    details = {"calibration_loss": told.loss, "num_grads": told.num_grads} if told else {}
    kept = _kept(everything(model), gone)
    if settings.saliency != "obs":
        return Removal(kept, {}, details=details)
    weights = {}
    for layer in layers:
        if taken[layer.name]:
            weights |= _refitted(model, layer, consumers[layer.name], gone[layer.part, layer.number], settings.damp)
    predicted = sum(sum(offers[name].curve.losses[:steps]) for name, steps in taken.items())
    return Removal(kept, weights, predicted, details)


def _offer(curve: Curve, layer: _Layer, prices: Prices) -> Offer:
    price = {"heads": prices.heads, "neurons": prices.neurons}[layer.part]
    left = accumulate((len(step) for step in curve.steps), sub, initial=layer.num_groups)
    return Offer(curve, [price(before) - price(after) for before, after in pairwise(left)])


def _layers(model: nn.Module, part: Part) -> list[_Layer]:
    blocks = blocks_of(model).items()
    if part == "heads":
        return [_Layer(part, number, block.attn.num_heads, block.attn.head_dim) for number, block in blocks]
    return [_Layer(part, number, block.mlp.fc1.out_features, 1) for number, block in blocks]


def _kept(whole: Kept, gone: Mapping[tuple[Part, int], set[int]]) -> Kept:
    def left(part: Part, number: int, numbers: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(n for n in numbers if n not in gone.get((part, number), ()))

    return Kept(
        {number: left("heads", number, numbers) for number, numbers in whole.heads.items()},
        {number: left("neurons", number, numbers) for number, numbers in whole.neurons.items()},
    )


def _curve(model: nn.Module, layer: _Layer, settings: Settings, consumers: Mapping[str, Consumer]) -> Curve:
    sizes = layer.sizes(settings)
    if settings.saliency == "magnitude":
        return _ascending(_squared_norms(model, layer), sizes)
    consumer = consumers[layer.name]
    if settings.saliency == "taylor":
        return _ascending(consumer.squares_G / (2 * settings.num_grads), sizes)
    a_II = consumer.a_II / settings.num_grads
    w_OI = consumer.w_OI.double()
    m_II = w_OI.T @ (consumer.b_OO.double() / consumer.b_OO.double().trace()) @ w_OI
    return eliminate_groups(damped(a_II, settings.damp), m_II, layer.columns().to(m_II.device), sizes)


def _ascending(score_G: Tensor, sizes: Sequence[int]) -> Curve:
    """Groups by rising score; a step's loss is the sum of its scores."""
    order = score_G.sort(stable=True)
    steps = order.indices[: sum(sizes)].split(list(sizes))
    losses = order.values[: sum(sizes)].split(list(sizes))
    return Curve(tuple(tuple(sorted(s.tolist())) for s in steps), tuple(float(loss.sum()) for loss in losses))


def _squared_norms(model: nn.Module, layer: _Layer) -> Tensor:
    """Sum of squares of all weights of each group [G], in its own rows and in its consumer's columns."""
    consumer = layer_of(model, layer.name)
    producer = layer_of(model, layer.name.replace("attn.proj", "attn.qkv").replace("mlp.fc2", "mlp.fc1"))
    rows = producer.weight.detach().double().square().sum(1)
    if producer.bias is not None:
        rows = rows + producer.bias.detach().double().square()
    columns = consumer.weight.detach().double().square().sum(0)
    # rows of q, k and v stand below one another, each in the order of the consumer's columns
    return (rows.view(-1, len(columns)).sum(0) + columns).view(layer.num_groups, layer.group).sum(1)


def _refitted(model: nn.Module, layer: _Layer, consumer: Consumer, gone: set[int], damp: float) -> dict[str, Tensor]:
    """The consumer's weight and bias after OBS; its columns that go are as they were."""
    stays_G = torch.tensor([group not in gone for group in range(layer.num_groups)])
    kept = torch.cat([stays_G.repeat_interleave(layer.group), torch.ones(int(consumer.has_bias), dtype=torch.bool)])
    index = kept.nonzero().flatten().to(consumer.w_OI.device)
    w_OI = consumer.w_OI.double().clone()
    w_OI[:, index] = compensated(w_OI, damped(consumer.a_II, damp), index)
    return new_values(layer.name, layer_of(model, layer.name), w_OI)
