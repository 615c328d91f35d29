"""What a recipe may say: one pydantic model per modifier, chosen by its YAML tag. No torch here.

Epochs are fractional and count from 0; -1 as a start means "from the beginning", as an end "to the end".
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ovit_deploy.recipe.schedule import Interpolation, LearningRateFunction

Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(ge=0, le=1)]
Selectors = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value), Field(min_length=1)
]


class Declaration(BaseModel):
    """A part of a recipe: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelSection(Declaration):
    """The network: a timm name with its arguments, and the preprocessing it expects where timm has none."""

    name: str
    kwargs: dict[str, Any] = {}
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class Augmentation(Declaration):
    """What happens to training images; torchvision's and timm's transforms do it."""

    crop_padding: int | None = Field(None, ge=0, description="random crop after padding by so many pixels")
    crop_scale: tuple[float, float] = (0.08, 1.0)
    horizontal_flip: float = Field(0.5, ge=0, le=1)
    rand_augment: str | None = Field(None, description="timm's notation, such as rand-m9-mstd0.5-inc1")
    erasing: float = Field(0.0, ge=0, le=1)


class Training(Declaration):
    """How the loop trains, where no modifier says otherwise."""

    batch_size: int = Field(128, ge=1)
    optimizer: str = "adamw"
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    clip_gradient_norm: float | None = Field(1.0, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    augmentation: Augmentation = Augmentation()
    seed: int = 0


class Modifier(Declaration):
    """What all modifiers share: the epochs between which they act."""

    start_epoch: float = Field(-1, ge=-1)
    end_epoch: float = Field(-1, ge=-1)

    @property
    def start(self) -> float:
        """The first epoch: -1 means 0."""
        return max(self.start_epoch, 0.0)

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> "Modifier":
        if 0 <= self.end_epoch < self.start:
            raise ValueError(f"end_epoch {self.end_epoch:g} comes before start_epoch {self.start:g}")
        return self


class EpochRangeModifier(Modifier):
    """How long training lasts."""

    end_epoch: float = Field(ge=0)


class SetLearningRateModifier(Modifier):
    """One learning rate from ``start_epoch`` on."""

    learning_rate: float = Field(gt=0, le=1)


class LearningRateFunctionModifier(Modifier):
    """A learning rate that moves: see `ovit_deploy.recipe.schedule.learning_rate`."""

    lr_func: LearningRateFunction
    init_lr: Rate
    final_lr: Rate
    start_epoch: float = Field(ge=0)
    end_epoch: float = Field(gt=0)
    cycle_epochs: float = Field(1.0, gt=0)


class SetWeightDecayModifier(Modifier):
    """One weight decay from ``start_epoch`` on."""

    weight_decay: float = Field(ge=0)


class DistillationModifier(Modifier):
    """Learn from the dense model: (1 - hardness) * task loss + hardness * T^2 * KL(teacher || student) at T."""

    hardness: Rate = 0.5
    temperature: float = Field(2.0, gt=0)


class ConstantPruningModifier(Modifier):
    """Keep the zeros that are there at ``start_epoch``."""

    params: Selectors


class PruningModifier(Modifier):
    """A gradual pruner: from ``init_sparsity`` to ``final_sparsity``, every ``update_frequency`` epochs."""

    gradients: ClassVar[bool] = False

    params: Selectors
    init_sparsity: Fraction
    final_sparsity: Fraction
    start_epoch: float = Field(ge=0)
    end_epoch: float = Field(ge=0)
    update_frequency: float = Field(gt=0)
    inter_func: Interpolation = "cubic"
    mask_type: Literal["unstructured"] = "unstructured"
    leave_enabled: Literal[True] = True

    @model_validator(mode="after")
    def _grows(self) -> "PruningModifier":
        if self.final_sparsity < self.init_sparsity:
            raise ValueError(f"final_sparsity {self.final_sparsity:g} is below init_sparsity {self.init_sparsity:g}")
        return self


class GMPruningModifier(PruningModifier):
    """Gradual magnitude pruning (arXiv 1710.01878), per layer unless ``global_sparsity``."""

    global_sparsity: bool = False
    phased: Literal[False] = False
    score_type: Literal["magnitude"] = "magnitude"


class GlobalMagnitudePruningModifier(PruningModifier):
    """Gradual magnitude pruning with one threshold for all layers."""

    global_sparsity: Literal[True] = True


class OViTPruningModifier(PruningModifier):
    """oViT (arXiv 2210.09223): block Fisher, greedy joint elimination, exact global budget."""

    gradients: ClassVar[bool] = True

    fisher_block_size: int = Field(192, ge=1)
    num_grads: int = Field(4096, ge=1)
    damp: float = Field(1e-8, ge=0)
    num_recomputations: int = Field(1, ge=1)
    allocation: Literal["hull", "marginal", "cumulative", "uniform"] = "hull"
    global_sparsity: Literal[True] = True


class CAPruningModifier(OViTPruningModifier):
    """oViT as its second paper's recipes call it, with their defaults and the paper's allocation."""

    fisher_block_size: int = Field(50, ge=1)
    num_grads: int = Field(1024, ge=1)
    damp: float = Field(1e-7, ge=0)
    allocation: Literal["hull", "marginal", "cumulative", "uniform"] = "cumulative"


MODIFIERS: dict[str, type[Modifier]] = {
    kind.__name__: kind
    for kind in (
        EpochRangeModifier,
        SetLearningRateModifier,
        LearningRateFunctionModifier,
        SetWeightDecayModifier,
        DistillationModifier,
        ConstantPruningModifier,
        GMPruningModifier,
        GlobalMagnitudePruningModifier,
        OViTPruningModifier,
        CAPruningModifier,
    )
}


class Recipe(Declaration):
    """A whole recipe, checked."""

    source: str
    text: str
    modifiers: tuple[Modifier, ...]
    training: Training = Training()
    model: ModelSection | None = None
    # Where each modifier stands in its file, "file:line:column", for errors found later.
    places: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.source.rsplit("/", 1)[-1].removesuffix(".yaml")
