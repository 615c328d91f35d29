"""A fresh model brought to the structure that a checkpoint tells, of either kind."""

from torch import nn

from ovit_deploy.errors import ModelError
from ovit_deploy.structure.channels import remove_channels, shrink_to
from ovit_deploy.structure.cutting import Cut, Cuts
from ovit_deploy.structure.removal import shrink
from ovit_deploy.structure.sizes import AnyStructure, Shapes
from ovit_deploy.structure.stream import stream_of


def rebuild(model: nn.Module, structure: AnyStructure) -> Cuts:
    """Without what the structure has not, in place; to be given its weights.

    Returns:
        How each tensor was cut.

    Raises:
        ModelError: the model has less than that.
    """
    if isinstance(structure, Shapes):
        return shrink_to(model, structure)
    plan = shrink(model, structure)
    return plan if structure.embed_dim is None else _joined(plan, _narrow(model, structure.embed_dim))


def _narrow(model: nn.Module, width: int) -> dict[str, Cut]:
    """The first channels of the stream stay."""
    stream = stream_of(model)
    if width > stream.count:
        raise ModelError("embed_dim: the structure has more than the model", "check --checkpoint")
    return remove_channels(model, [stream], {stream.name: range(width, stream.count)})


def _joined(first: Cuts, then: Cuts) -> Cuts:
    """Two plans, one carried out after the other."""
    joined: dict[str, Cut | None] = dict(first)
    for name, how in then.items():
        joined[name] = (*(joined.get(name) or ()), *(how or ()))
    return joined
