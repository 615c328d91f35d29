"""A fresh model brought to the structure that a checkpoint tells, of either kind."""

from torch import nn

from ovit_deploy.structure.channels import shrink_to
from ovit_deploy.structure.cutting import Cuts
from ovit_deploy.structure.removal import shrink
from ovit_deploy.structure.sizes import AnyStructure, Shapes


def rebuild(model: nn.Module, structure: AnyStructure) -> Cuts:
    """Without what the structure has not, in place; to be given its weights.

    Returns:
        How each tensor was cut.

    Raises:
        ModelError: the model has less than that.
    """
    return shrink_to(model, structure) if isinstance(structure, Shapes) else shrink(model, structure)
