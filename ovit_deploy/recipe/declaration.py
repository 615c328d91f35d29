"""What all parts of a recipe share: strict immutable models, and the epochs of a modifier. No torch here.

Epochs are fractional and count from 0; -1 as a start means "from the beginning", as an end "to the end".
"""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

Rate = Annotated[float, Field(ge=0, le=1)]
Selectors = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value), Field(min_length=1)
]
Compat = Literal["sparseml"]
_LAST_EPOCH = 1_000_000


class Declaration(BaseModel):
    """A part of a recipe: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Modifier(Declaration):
    """What all modifiers share: the epochs between which they act."""

    start_epoch: float = Field(-1, ge=-1)
    end_epoch: float = Field(-1, ge=-1)

    @property
    def short_name(self) -> str:
        """The tag without its ending, as users say it."""
        return type(self).__name__.removesuffix("Modifier").removesuffix("Pruning")

    @property
    def start(self) -> float:
        """The first epoch: -1 means 0."""
        return max(self.start_epoch, 0.0)

    @field_validator("start_epoch", "end_epoch")
    @classmethod
    def _in_a_lifetime(cls, epoch: float) -> float:
        if epoch > _LAST_EPOCH:
            raise ValueError(f"epochs end at {_LAST_EPOCH:,}")
        return epoch

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> "Modifier":
        if 0 <= self.end_epoch < self.start:
            raise ValueError(f"end_epoch {self.end_epoch:g} comes before start_epoch {self.start:g}")
        return self
