"""Modifiers that prune by what training does: the gradients of its steps decide, or pruned weights may come back."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ovit_deploy.recipe import mask_types
from ovit_deploy.recipe.mask_types import MaskKind
from ovit_deploy.recipe.pruners import PruningModifier
from ovit_deploy.recipe.sparsifier import Fraction, Sparsifier


class MovementPruningModifier(PruningModifier):
    """Movement pruning (arXiv 2005.07683): weights that training moves towards zero go; scored from epoch 0 on."""

    masks: ClassVar[tuple[MaskKind, ...]] = mask_types.KINDS

    global_sparsity: bool = False

    @model_validator(mode="after")
    def _has_seen_training(self) -> "MovementPruningModifier":
        if self.start == 0 and (self.first_sparsity > 0 or self.end_epoch == 0):
            raise ValueError(
                "weights are scored while they train, and at epoch 0 nothing has: start later, or at init_sparsity 0"
            )
        return self


class ACDCPruningModifier(Sparsifier):
    """AC/DC (arXiv 2106.12379): dense and compressed by turns of ``update_frequency`` epochs, compressed at last."""

    masks: ClassVar[tuple[MaskKind, ...]] = mask_types.KINDS

    compression_sparsity: Fraction
    global_sparsity: bool = True
    momentum_buffer_reset: bool = Field(True, description="forget the optimizer's moments when a dense phase begins")

    @property
    def sparsities(self) -> tuple[float, ...]:
        """That of the compressed phases."""
        return (self.compression_sparsity,)


class RigLPruningModifier(Sparsifier):
    """RigL (arXiv 1911.11134): at each update the smallest weights go, where gradients are largest new ones grow."""

    final_sparsity: Fraction
    num_grads: int = Field(1, ge=1, description="training batches whose mean gradient decides what grows")
    global_sparsity: bool = Field(False, description="weights may move from one target to another")
    momentum_buffer_reset: bool = Field(True, description="grown weights start without the optimizer's moments")
    sparsity_strategy: Literal["erdos_renyi_kernel", "erdos_renyi", "uniform"] = Field(
        "erdos_renyi_kernel", description="how the zeros are spread over the targets at start_epoch"
    )
    init_update_fraction: float = Field(0.3, gt=0, le=1, description="of the kept weights; falls as a cosine")

    @property
    def sparsities(self) -> tuple[float, ...]:
        """One sparsity from start to end."""
        return (self.final_sparsity,)
