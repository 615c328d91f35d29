"""Modifiers that write values into parameters, or write down how sparse they are."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from ovit_deploy.recipe.declaration import Modifier, Selectors
from ovit_deploy.recipe.schedule import Interpolation, interpolate, update_epochs

_MAX_UPDATES = 100_000


def _flat(value: Any) -> Any:
    """Nested lists as one tuple, row by row; anything else as it is."""
    if not isinstance(value, list | tuple):
        return value
    flat, rest = [], list(reversed(value))
    while rest:
        item = rest.pop()
        if isinstance(item, list | tuple):
            rest.extend(reversed(item))
        else:
            flat.append(item)
    return tuple(flat)


Value = Annotated[
    float | tuple[float, ...],
    BeforeValidator(_flat),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "array"}]}),
]


class SetParamModifier(Modifier):
    """Set parameters to a value at ``start_epoch``; what is pruned stays zero."""

    params: Selectors
    val: Value = Field(description="a number, or as many as the parameter has, row by row")
    params_strict: bool = True


class GradualParamModifier(Modifier):
    """Set parameters to a number that moves between two epochs; what is pruned stays zero."""

    params: Selectors
    init_val: float
    final_val: float
    start_epoch: float = Field(ge=0)
    end_epoch: float = Field(gt=0)
    update_frequency: float = Field(gt=0)
    inter_func: Interpolation = "linear"
    params_strict: bool = True

    @model_validator(mode="after")
    def _has_dates(self) -> "GradualParamModifier":
        if self.end_epoch <= self.start_epoch:
            raise ValueError(f"end_epoch {self.end_epoch:g} must come after start_epoch {self.start_epoch:g}")
        if (self.end_epoch - self.start_epoch) / self.update_frequency > _MAX_UPDATES:
            raise ValueError(f"update_frequency {self.update_frequency:g} makes more than {_MAX_UPDATES:,} updates")
        return self

    @property
    def values(self) -> list[tuple[float, float]]:
        """When the parameters are set, and to what."""
        start, length = self.start_epoch, self.end_epoch - self.start_epoch
        return [
            (epoch, interpolate((epoch - start) / length, self.init_val, self.final_val, self.inter_func))
            for epoch in update_epochs(start, self.end_epoch, self.update_frequency)
        ]


class SparsificationLoggingModifier(Modifier):
    """Write the sparsity of every matrix to metrics.jsonl, every ``update_frequency`` epochs."""

    update_frequency: float = Field(1.0, gt=0)

    def is_due(self, epoch: float, step: float) -> bool:
        """Whether one of its dates falls on the step that starts at ``epoch`` and lasts ``step`` epochs."""
        last = self.end_epoch if self.end_epoch >= 0 else epoch
        if not self.start - step / 2 < epoch < last + step / 2:
            return False
        nearest = self.start + round((epoch - self.start) / self.update_frequency) * self.update_frequency
        return epoch - step / 2 <= nearest < epoch + step / 2
