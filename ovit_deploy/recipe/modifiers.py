"""Modifiers that do not prune: how long, how fast, with which teacher, and what is trained or held."""

from typing import Literal

from pydantic import (
    Field,
    model_validator,
)

from ovit_deploy.recipe.declaration import Declaration, Modifier, Rate, Selectors
from ovit_deploy.recipe.schedule import LearningRateFunction


class EpochRangeModifier(Modifier):
    """How long training lasts."""

    end_epoch: float = Field(ge=0)


class SetLearningRateModifier(Modifier):
    """One learning rate from ``start_epoch`` on."""

    learning_rate: float = Field(gt=0, le=1)
    param_groups: None = None


class WarmUp(Modifier):
    """A rate that may begin with a straight line from ``warmup_lr``, in the first ``warmup_epochs`` of its range."""

    warmup_epochs: float = Field(0.0, ge=0)
    warmup_lr: Rate = 0.0

    @model_validator(mode="after")
    def _warms_up_in_its_range(self) -> "WarmUp":
        if self.end_epoch >= 0 and self.warmup_epochs > self.end_epoch - self.start:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} is longer than the rate lasts")
        return self


class LearningRateFunctionModifier(WarmUp):
    """A learning rate that moves: see `ovit_deploy.recipe.schedule.learning_rate`."""

    lr_func: LearningRateFunction
    init_lr: Rate
    final_lr: Rate
    start_epoch: float = Field(ge=0)
    end_epoch: float = Field(gt=0)
    cycle_epochs: float = Field(1.0, gt=0)
    cycle_mul: float = Field(1.0, gt=0, le=10)
    warmup: float = Field(0.0, ge=0)
    decay_rate: float = Field(0.9, gt=0, le=1)
    decay_epochs: float = Field(1.0, gt=0)
    param_groups: None = None

    @model_validator(mode="after")
    def _cycles_only_if_cyclic(self) -> "LearningRateFunctionModifier":
        asked = self.model_fields_set & {"cycle_mul", "warmup", "decay_rate", "decay_epochs"}
        if asked and not self.lr_func.startswith("cyclic_"):
            raise ValueError(
                f"{', '.join(sorted(asked))} without a cycle: lr_func {self.lr_func} runs once; "
                f"say cyclic_{self.lr_func}, or 'dialect: cap' at the top of the recipe"
            )
        return self


class RateSettings(Declaration):
    """What an ``lr_class`` takes; epochs, not steps, and ``milestones`` count from the start of training."""

    gamma: float | None = Field(None, gt=0)
    step_size: float | None = Field(None, gt=0)
    milestones: tuple[float, ...] | None = None
    lr_min: Rate | None = None
    max_lr: Rate | None = None
    pct_start: Rate | None = None
    cycle_epochs: float | None = Field(None, gt=0)


_NEEDS = {
    "StepLR": {"step_size", "gamma"},
    "MultiStepLR": {"milestones", "gamma"},
    "ExponentialLR": {"gamma"},
    "CosineAnnealingWarmRestarts": {"lr_min", "cycle_epochs"},
    "OneCycleLR": {"max_lr", "pct_start", "lr_min"},
}


class LearningRateModifier(WarmUp):
    """A learning rate as torch's schedulers move it, in epochs: see `ovit_deploy.recipe.rates`."""

    lr_class: Literal["StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingWarmRestarts", "OneCycleLR"]
    lr_kwargs: RateSettings
    init_lr: Rate

    @model_validator(mode="after")
    def _has_its_settings(self) -> "LearningRateModifier":
        given, needs = self.lr_kwargs.model_fields_set, _NEEDS[self.lr_class]
        if given != needs:
            raise ValueError(f"lr_kwargs of {self.lr_class} are {', '.join(sorted(needs))}")
        if self.lr_class == "OneCycleLR" and self.end_epoch <= self.start:
            raise ValueError("OneCycleLR needs an end_epoch: its one cycle ends there")
        return self


class TrainableParamsModifier(Modifier):
    """Freeze parameters, or let them learn, between two epochs; afterwards they are as before."""

    params: Selectors
    trainable: bool
    params_strict: bool = True


class SetWeightDecayModifier(Modifier):
    """One weight decay from ``start_epoch`` on."""

    weight_decay: float = Field(ge=0)
    param_groups: None = None


class DistillationModifier(Modifier):
    """Learn from the dense model: (1 - hardness) * task loss + hardness * what ``kind`` says.

    ``logit``: T^2 * KL(teacher || student) at temperature T. ``feature``: mean square of the difference of the pooled
    features before the classifier. ``token``: the distillation token's head learns the teacher's logits (``soft``, as
    logit) or its class (``hard``; DeiT, arXiv 2012.12877); only models that have such a token.
    """

    hardness: Rate = 0.5
    temperature: float = Field(2.0, gt=0)
    kind: Literal["logit", "feature", "token"] = "logit"
    token_target: Literal["soft", "hard"] = "soft"

    @property
    def summary(self) -> str:
        """What is learned, in a few words."""
        warm = self.kind == "logit" or (self.kind == "token" and self.token_target == "soft")
        told = f"{self.kind}, hardness {self.hardness:g}"
        return f"{told}, temperature {self.temperature:g}" if warm else told


class PerLayerDistillationModifier(Modifier):
    """Learn from the outputs of the dense model's layers: task loss + gain * sum of their normalized mean squares."""

    student_layer_names: Selectors = Field(description="layers by name or re:pattern")
    teacher_layer_names: Selectors | None = Field(None, description="the same names, or left out")
    gain: float = Field(1.5, ge=0)
    normalize: bool = Field(True, description="divide by the mean square of the dense layer's outputs")
    epsilon: float = Field(1e-6, gt=0)
    project_features: bool = Field(True, description="has no effect: both have the same shapes")
    update_frequency: float | None = Field(None, description="has no effect")

    @model_validator(mode="after")
    def _compares_a_layer_with_itself(self) -> "PerLayerDistillationModifier":
        if self.teacher_layer_names not in (None, self.student_layer_names):
            raise ValueError("the teacher is the model itself before pruning: leave teacher_layer_names out")
        return self

    @property
    def summary(self) -> str:
        """What is learned, in a few words."""
        return f"layers {', '.join(self.student_layer_names)}, gain {self.gain:g}"


class ConstantPruningModifier(Modifier):
    """Keep the zeros that are there at ``start_epoch``."""

    params: Selectors
    update_frequency: float | None = Field(None, description="has no effect")
