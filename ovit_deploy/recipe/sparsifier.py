"""What all modifiers that make zeros share: targets, dates, and which weights may be zero together."""

from abc import abstractmethod
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ovit_deploy.recipe import mask_types
from ovit_deploy.recipe.declaration import Modifier, Selectors
from ovit_deploy.recipe.mask_types import MaskKind

Fraction = Annotated[float, Field(ge=0, lt=1)]
MaskType = Annotated[str, BeforeValidator(mask_types.canonical)]
_MAX_UPDATES = 100_000
_NEAR = 1e-3
_SPARSITIES = {"init_sparsity", "final_sparsity", "compression_sparsity"}


class Sparsifier(Modifier):
    """A modifier that makes zeros in its targets, at ``start_epoch`` and every ``update_frequency`` epochs."""

    masks: ClassVar[tuple[MaskKind, ...]] = ("unstructured",)

    params: Selectors
    start_epoch: float = Field(ge=0)
    end_epoch: float = Field(ge=0)
    update_frequency: float
    mask_type: MaskType = "unstructured"
    leave_enabled: bool = True
    heal_samples: int = Field(0, ge=0, description="images to refit each pruned layer's outputs on; 0 refits nothing")

    @property
    @abstractmethod
    def sparsities(self) -> tuple[float, ...]:
        """What its targets are pruned to, as far as the recipe knows."""

    @property
    def starts_from_own(self) -> bool:
        """Whether pruning starts from the zeros that the targets have then."""
        return False

    @property
    def num_images(self) -> int:
        """Calibration images that a pruning looks at; 0 if it looks at none."""
        return 0

    @model_validator(mode="after")
    def _updates_at_dates(self) -> "Sparsifier":
        if (self.end_epoch - self.start) / self.update_frequency > _MAX_UPDATES:
            raise ValueError(f"update_frequency {self.update_frequency:g} makes more than {_MAX_UPDATES:,} prunings")
        return self

    @field_validator("update_frequency")
    @classmethod
    def _has_dates(cls, every: float) -> float:
        if every <= 0:
            raise ValueError("must be the epochs between two updates")
        return every

    @field_validator("mask_type")
    @classmethod
    def _can_be_pruned_to(cls, mask: str) -> str:
        if mask_types.parse(mask).kind not in cls.masks:
            raise ValueError(f"{mask} is not supported here; use {' or '.join(cls.masks)}")
        return mask

    @model_validator(mode="after")
    def _fits_its_mask(self) -> "Sparsifier":
        fixed = mask_types.parse(self.mask_type).sparsity
        if fixed is not None and any(abs(sparsity - fixed) > _NEAR for sparsity in self.sparsities):
            names = [
                name for name in type(self).model_fields if name.endswith("_sparsity") and name != "global_sparsity"
            ]
            raise ValueError(f"{self.mask_type} has one sparsity: set {' and '.join(names)} to {fixed:g}")
        return self

    @field_validator("leave_enabled")
    @classmethod
    def _keeps_zeros(cls, keeps: bool) -> bool:
        if not keeps:
            raise ValueError("false would let the zeros grow back after end_epoch; remove the key")
        return keeps
