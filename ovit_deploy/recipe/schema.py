"""What a recipe may say: its sections, and the models of its modifiers by their YAML tags. No torch here."""

from pathlib import PurePath
from typing import Any, Literal

from pydantic import Field

from ovit_deploy.recipe.declaration import Declaration, Modifier
from ovit_deploy.recipe.modifiers import (
    ConstantPruningModifier,
    DistillationModifier,
    EpochRangeModifier,
    LearningRateFunctionModifier,
    LearningRateModifier,
    SetLearningRateModifier,
    SetWeightDecayModifier,
    TrainableParamsModifier,
)
from ovit_deploy.recipe.pruners import (
    CAPruningModifier,
    FastOViTPruningModifier,
    GlobalMagnitudePruningModifier,
    GMPruningModifier,
    GWProdPruningModifier,
    MagnitudePruningModifier,
    MFACPruningModifier,
    OBCPruningModifier,
    OBSPruningModifier,
    OViTPruningModifier,
    SparseGPTPruningModifier,
    WandaPruningModifier,
)
from ovit_deploy.recipe.quantization import QuantizationModifier


class ModelSection(Declaration):
    """The network: a timm name with its arguments, and the preprocessing it expects where timm has none."""

    name: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
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
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the products while training (autocast)"
    )
    augmentation: Augmentation = Augmentation()
    seed: int = 0


MODIFIERS: dict[str, type[Modifier]] = {
    kind.__name__: kind
    for kind in (
        EpochRangeModifier,
        SetLearningRateModifier,
        LearningRateFunctionModifier,
        LearningRateModifier,
        SetWeightDecayModifier,
        DistillationModifier,
        TrainableParamsModifier,
        QuantizationModifier,
        ConstantPruningModifier,
        GMPruningModifier,
        MagnitudePruningModifier,
        GlobalMagnitudePruningModifier,
        OViTPruningModifier,
        CAPruningModifier,
        FastOViTPruningModifier,
        OBSPruningModifier,
        MFACPruningModifier,
        GWProdPruningModifier,
        SparseGPTPruningModifier,
        OBCPruningModifier,
        WandaPruningModifier,
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
    # The stage each modifier belongs to, "" where the recipe has none.
    stages: tuple[str, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return PurePath(self.source).stem
