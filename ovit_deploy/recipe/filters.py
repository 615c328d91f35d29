"""SparseML's structured pruning: zeros in whole filters or channels, and layers made smaller by those."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from ovit_deploy.recipe.declaration import Modifier, Selectors
from ovit_deploy.recipe.pruners import PruningModifier

AXES = ("filter", "channel")  # of a weight
Axis = Annotated[str, Field(pattern=f"^({'|'.join(AXES)})$")]
Names = Annotated[tuple[str, ...], Field(min_length=1)]


class StructuredPruningModifier(PruningModifier):
    """Zeros in whole filters (of one output) or channels (of one input), the smallest L2 norms of each layer.

    Matrices keep their size; `LayerThinningModifier` makes them smaller. Layers of a group have zeros in the same
    places, where the sum of their norms is least.
    """

    params: Selectors = ("__ALL_PRUNABLE__",)
    param_groups: tuple[Names, ...] | None = Field(None, description="names of params that share their zeros")
    mask_type: Axis = "filter"

    @field_validator("mask_type")
    @classmethod
    def _can_be_pruned_to(cls, mask: str) -> str:
        return mask

    @model_validator(mode="after")
    def _fits_its_mask(self) -> "StructuredPruningModifier":
        return self

    @model_validator(mode="after")
    def _is_in_one_group(self) -> "StructuredPruningModifier":
        names = [name for group in self.param_groups or () for name in group]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"param_groups: {', '.join(twice)} in more than one group")
        return self


class LayerThinningModifier(Modifier):
    """Remove filters (or channels) of zeros from the layers that have them and from those that depend on these.

    Keys of the map are names of parameters that share their zeros, between commas; values the parameters that lose
    the same inputs (with ``channel``: outputs). Norms, biases and depthwise convolutions between them are found.
    """

    param_group_dependency_map: dict[str, Names] = Field(min_length=1)
    structure_type: Axis = "filter"
    update_epochs: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    strict: bool = True

    @property
    def groups(self) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """The parameters with zeros, and those that depend on them."""
        return [
            (tuple(name.strip() for name in key.split(",")), names)
            for key, names in self.param_group_dependency_map.items()
        ]

    @property
    def dates(self) -> list[float]:
        """When layers are thinned."""
        return sorted({self.start, *(self.update_epochs or ())})

    def describe(self) -> str:
        """A removal in a few words."""
        return f"{self.structure_type}s of zeros in {len(self.param_group_dependency_map)} groups of layers"

    @field_validator("strict")
    @classmethod
    def _names_exist(cls, strict: bool) -> bool:
        if not strict:
            raise ValueError("false would pass over names that the model has not; remove the key, and those names")
        return strict

    @model_validator(mode="after")
    def _has_no_end(self) -> "LayerThinningModifier":
        if self.end_epoch >= 0:
            raise ValueError("end_epoch: what is removed stays so; remove the key")
        if any(epoch < self.start for epoch in self.update_epochs or ()):
            raise ValueError("update_epochs: before start_epoch")
        return self
