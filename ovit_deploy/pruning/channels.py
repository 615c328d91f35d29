"""Channels of convolutional and hybrid networks: groups of input columns of the layers that read them.

The loss of a channel is that of its columns in all its consumers together, with the Fisher matrices of different layers
taken for independent: elimination on the block-diagonal of their factors. Removing channels from two layers that meet
saves more than the sum of both, so the budget is counted exactly at each step (structure/bill.py).

Shape suffixes: C channels, S columns of a channel in all consumers, O outputs, I inputs.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.consumers import Consumer, Told, consumers_of
from ovit_deploy.pruning.gradients import layer_of
from ovit_deploy.pruning.group_budget import Offer, spend_counting
from ovit_deploy.pruning.group_obs import Curve, compensated, damped, eliminate_groups
from ovit_deploy.pruning.method import Calibration
from ovit_deploy.pruning.structured import Removal, Settings, new_values
from ovit_deploy.structure.bill import Bill
from ovit_deploy.structure.channels import Group, Slice, plan_of

_MOST_COLUMNS = 8192  # of all consumers of a group: matrices of 0.5 GB


def choose(model: nn.Module, settings: Settings, bill: Bill, budget: int, calibration: Calibration | None) -> Removal:
    """Choose which channels go so that the rest costs at most ``budget``; the model is left as it was found.

    Raises:
        PruningError: the floors keep more than the budget, or calibration has too few images, or a group is too large
            for OBS.
    """
    groups = list(bill.groups.values())
    told = None
    if settings.saliency == "obs":
        told = _told(model, groups, settings, calibration)
    curves = {group.name: _curve(model, group, settings, told) for group in groups}
    offers = {name: Offer(curve, _saved(bill, name, curve)) for name, curve in curves.items()}
    gone_by = {name: [0, *accumulate(len(step) for step in curve.steps)] for name, curve in curves.items()}
    taken = spend_counting(
        offers, lambda taken: bill.of({name: gone_by[name][steps] for name, steps in taken.items()}), budget=budget
    )
    gone = {name: curves[name].groups(steps) for name, steps in taken.items()}
    plan = plan_of(model, groups, gone)
    left = {group.name: group.count - len(gone[group.name]) for group in groups}
    if told is None:
        return Removal(plan, {}, details={"channels": left})
    predicted = sum(sum(curves[name].losses[:steps]) for name, steps in taken.items())
    details = {"calibration_loss": told.loss, "num_grads": told.num_grads, "channels": left}
    return Removal(plan, _refitted(model, groups, gone, told, settings.damp), predicted, details)


def sizes(count: int, settings: Settings) -> list[int]:
    """How many channels go at each step: as many as leave a number that is allowed."""
    each = settings.multiple_of
    first, floor = count % each, -(-settings.min_channels // each) * each
    steps = (count - first - floor) // each
    return [] if steps < 0 else [*([first] if first else []), *[each] * steps]


def _saved(bill: Bill, name: str, curve: Curve) -> list[int]:
    """What each step saves while all other groups are whole."""
    costs = [bill.of({name: gone}) for gone in accumulate((len(step) for step in curve.steps), initial=0)]
    return [before - after for before, after in pairwise(costs)]


def _told(model: nn.Module, groups: Sequence[Group], settings: Settings, calibration: Calibration | None) -> Told:
    if calibration is None:
        raise PruningError("saliency obs needs calibration images", "give some, or set saliency: magnitude")
    columns = {slice_.tensor: _patch(model, slice_) for group in groups for slice_ in group.consumers}
    for group in groups:
        count = sum(slice_.index_CS.numel() * columns[slice_.tensor] for slice_ in group.consumers)
        if count > _MOST_COLUMNS:
            raise PruningError(
                f"{group.name}: its channels are {count:,} columns in the layers that read them: too many for OBS",
                "set saliency: magnitude",
            )
    return consumers_of(model, columns, calibration, settings.num_grads)


def _patch(model: nn.Module, slice_: Slice) -> int:
    """Columns of one input of a layer: the pixels of its kernel."""
    return model.get_parameter(slice_.tensor)[0, 0].numel()


def _columns(slice_: Slice, patch: int) -> Tensor:
    """Of each channel in one consumer, as a matrix [C, S]."""
    return (slice_.index_CS[:, :, None] * patch + torch.arange(patch)).flatten(1)


def _curve(model: nn.Module, group: Group, settings: Settings, told: Told | None) -> Curve:
    steps = sizes(group.count, settings)
    if told is None:
        return _ascending(_squared_norms(model, group), steps)
    a, m, columns, offset = [], [], [], 0
    for slice_ in group.consumers:
        consumer = told.consumers[slice_.tensor]
        w_OI = consumer.w_OI.double()
        b_OO = consumer.b_OO.double()
        a.append(damped(consumer.a_II / told.num_grads, settings.damp))
        m.append(w_OI.T @ (b_OO / b_OO.trace()) @ w_OI)
        columns.append(offset + _columns(slice_, _patch(model, slice_)))
        offset += w_OI.shape[1]
    a_II, m_II = torch.block_diag(*a), torch.block_diag(*m)
    return eliminate_groups(a_II, m_II, torch.cat(columns, 1).to(m_II.device), steps)


def _ascending(score_C: Tensor, steps: Sequence[int]) -> Curve:
    order = score_C.sort(stable=True)
    picked = order.indices[: sum(steps)].split(list(steps))
    losses = order.values[: sum(steps)].split(list(steps))
    return Curve(tuple(tuple(sorted(p.tolist())) for p in picked), tuple(float(loss.sum()) for loss in losses))


def _squared_norms(model: nn.Module, group: Group) -> Tensor:
    """Sum of squares of all weights of each channel [C], in producers, norms and consumers."""
    parameters = dict(model.named_parameters())
    total = torch.zeros(group.count, dtype=torch.float64)
    for slice_ in group.slices:
        if slice_.tensor in parameters:
            squares = parameters[slice_.tensor].detach().double().square().movedim(slice_.dim, 0)
            total += squares.reshape(len(squares), -1).sum(1).cpu()[slice_.index_CS].sum(1)
    return total


def _refitted(
    model: nn.Module, groups: Sequence[Group], gone: Mapping[str, set[int]], told: Told, damp: float
) -> dict[str, Tensor]:
    """Weights and biases of all consumers that lose columns, after OBS; the columns that go are as they were."""
    lost: dict[str, list[Tensor]] = defaultdict(list)
    for group in groups:
        channels = torch.tensor(sorted(gone[group.name]), dtype=torch.long)
        for slice_ in group.consumers if len(channels) else ():
            lost[slice_.tensor].append(_columns(slice_, _patch(model, slice_))[channels].flatten())
    weights: dict[str, Tensor] = {}
    for name, columns in lost.items():
        weights |= new_values(name, layer_of(model, name), _compensated(told.consumers[name], columns, damp))
    return weights


def _compensated(consumer: Consumer, columns: Sequence[Tensor], damp: float) -> Tensor:
    w_OI = consumer.w_OI.double().clone()
    stays = torch.ones(w_OI.shape[1], dtype=torch.bool)
    stays[torch.cat(list(columns))] = False
    index = stays.nonzero().flatten().to(w_OI.device)
    w_OI[:, index] = compensated(w_OI, damped(consumer.a_II, damp), index)
    return w_OI
