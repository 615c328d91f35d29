"""Which heads, neurons or blocks of a vision transformer, or channels of another network, to remove.

    saliency    of a group                                                                update of the rest
    obs         group OBS (group_obs.py), greedy, re-evaluated at each step               compensate
    taylor      1/2 mean of squared gate gradients (Molchanov et al., arXiv 1906.10771)   none
    magnitude   sum of squares of all its weights                                         none
    loss        blocks only: the calibration loss without it, measured (measured_depth.py) none

Curves of all layers compete by loss for what they cost (group_budget.py). What differs between heads and neurons, and
blocks, is in head_width.py and depth.py, of channels in channels.py.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from ovit_deploy.structure import Cuts, Kept, Prices

Part = Literal["heads", "neurons", "blocks", "channels", "embedding"]
Saliency = Literal["obs", "taylor", "magnitude", "loss"]


@dataclass(frozen=True)
class Settings:
    """Of a choice.

    Args:
        saliency: see above.
        num_grads: calibration images whose gradients are taken; magnitude takes none.
        damp: of OBS, relative to the mean diagonal.
        multiple_of: what divides the width of a block, or a number of channels, afterwards, where it is cut.
        min_heads: that each block keeps.
        min_width: that each block keeps.
        min_blocks: that the network keeps.
        min_channels: that each group keeps.
    """

    saliency: Saliency = "obs"
    num_grads: int = 1024
    damp: float = 1e-2
    multiple_of: int = 8
    min_heads: int = 1
    min_width: int = 8
    min_blocks: int = 1
    min_channels: int = 8


@dataclass(frozen=True)
class Budget:
    """By which ``prices`` the model has which ``cost`` now, and what may stay of it."""

    prices: Prices
    cost: int
    budget: int


@dataclass(frozen=True)
class Removal:
    """What stays, and new values of parameters that compensate, shaped as they are before the removal.

    Of a vision transformer ``kept`` tells parts, of another network how tensors are cut.
    ``predicted_loss`` is the increase that OBS expects; None where the saliency is none of a loss.
    """

    kept: Kept | Cuts
    weights: dict[str, Tensor]
    predicted_loss: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


def layer_of(model: nn.Module, weight: str) -> nn.Linear:
    """The linear layer of a weight's name."""
    layer = model.get_submodule(weight.removesuffix(".weight"))
    assert isinstance(layer, nn.Linear)
    return layer


def new_values(name: str, layer: nn.Linear | nn.Conv2d, w_OI: Tensor) -> dict[str, Tensor]:
    """Values of a weight, and its bias where ``w_OI`` has it as a last column."""
    w_OI = w_OI.to(layer.weight.dtype)
    if layer.bias is None:
        return {name: w_OI.reshape(layer.weight.shape)}
    bias = name.removesuffix("weight") + "bias"
    return {name: w_OI[:, :-1].reshape(layer.weight.shape).contiguous(), bias: w_OI[:, -1].contiguous()}
