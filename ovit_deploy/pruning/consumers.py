"""What calibration tells of the layers that heads, neurons and channels feed, their consumers.

A linear layer, such as ``attn.proj`` and ``mlp.fc2``; a convolution is one with its unfolded patches as tokens.

All of it comes from per-sample gradients of the consumers' weights, the same that oViT's Fisher is made of. With
``gate gradient`` is meant the derivative of a sample's loss by a factor on a head, a neuron or a branch, at 1: for
columns q of W it is the sum of ``g_i * W`` over them, and for a branch over all of W and its bias.

Shape suffixes: N samples, T tokens, O outputs, I inputs (one more where there is a bias).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ovit_deploy.pruning.gradients import SampleGradients, check_against_autograd, layer_of
from ovit_deploy.pruning.method import Calibration
from ovit_deploy.pruning.samples import batch_gradients, mean_over_images, share


@dataclass
class Consumer:
    """Sums over samples for one layer; see group_obs.py for ``A`` and ``B``.

    Args:
        w_OI: its weight, with the bias as a last column.
        group: how many columns share a gate.
    """

    w_OI: Tensor
    group: int
    has_bias: bool
    a_II: Tensor = field(init=False)
    b_OO: Tensor = field(init=False)
    squares_G: Tensor = field(init=False)  # of gate gradients of the groups
    branch: list[Tensor] = field(default_factory=list)  # gate gradients of the whole layer, a batch each

    def __post_init__(self) -> None:
        outputs, inputs = self.w_OI.shape
        self.a_II, self.b_OO = self.w_OI.new_zeros(inputs, inputs), self.w_OI.new_zeros(outputs, outputs)
        self.squares_G = self.w_OI.new_zeros((inputs - int(self.has_bias)) // self.group)

    def add(self, gradients: SampleGradients) -> None:
        """Take a batch in; where tokens are few, gradients stay products, whose Gram matrices over tokens suffice."""
        x_NTI, d_NTO = gradients.inputs_NTGI[:, :, 0], gradients.deltas_NTGO[:, :, 0]
        if self.has_bias:
            x_NTI = torch.cat([x_NTI, x_NTI.new_ones(*x_NTI.shape[:2], 1)], 2)
        if x_NTI.shape[1] ** 2 > self.w_OI.numel():  # more numbers than a gradient itself has
            for d_TO, x_TI in zip(d_NTO, x_NTI, strict=True):
                g_OI = d_TO.T @ x_TI
                self.a_II += g_OI.T @ g_OI
                self.b_OO += g_OI @ g_OI.T
        else:
            self.a_II += x_NTI.flatten(0, 1).T @ (d_NTO @ d_NTO.mT @ x_NTI).flatten(0, 1)
            self.b_OO += d_NTO.flatten(0, 1).T @ (x_NTI @ x_NTI.mT @ d_NTO).flatten(0, 1)
        gates_NI = (x_NTI * (d_NTO @ self.w_OI)).sum(1)
        inside_NI = gates_NI[:, : gates_NI.shape[1] - int(self.has_bias)]
        self.squares_G += inside_NI.unflatten(1, (-1, self.group)).sum(2).square().sum(0)
        self.branch.append(gates_NI.sum(1))


@dataclass(frozen=True)
class Told:
    """Consumers by the name of their weight, and what calibration was like."""

    consumers: dict[str, Consumer]
    num_grads: int
    loss: float


def consumers_of(model: nn.Module, groups: dict[str, int], calibration: Calibration, num_grads: int) -> Told:
    """Pass over ``num_grads`` samples; where processes share them, sums are those of all, ``branch`` of one's own.

    Args:
        model: Left as it was found.
        groups: Columns that share a gate, by the name of a weight.
        calibration: Training images.
        num_grads: How many gradients.

    Raises:
        PruningError: there are fewer images, or a loss or gradient is not finite.
    """
    found = {name: _consumer(model, name, group) for name, group in groups.items()}
    images, labels = next(iter(calibration.batches()))
    check_against_autograd(model, list(groups)[:2], images, labels)
    total = 0.0
    for first, batch, targets in share(calibration, num_grads, {}):  # short enough to begin again
        total += batch_gradients(
            model, groups, batch, targets, calibration, first, lambda name, sample: found[name].add(sample)
        )
    for consumer in found.values():
        for sums in (consumer.a_II, consumer.b_OO, consumer.squares_G):
            calibration.ranks.reduce(sums)
    return Told(found, num_grads, mean_over_images(calibration, total, num_grads))


def _consumer(model: nn.Module, name: str, group: int) -> Consumer:
    layer = layer_of(model, name)
    weight_OI = layer.weight.detach().flatten(1)
    if layer.bias is None:
        return Consumer(weight_OI, group, has_bias=False)
    return Consumer(torch.cat([weight_OI, layer.bias.detach()[:, None]], 1), group, has_bias=True)
