"""What a recipe may say: its sections, and the models of its modifiers by their YAML tags. No torch here."""

from pathlib import PurePath
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.augmentation import Augmentation, NamedAugmentation
from ovit_deploy.recipe.declaration import Compat, Declaration, Modifier
from ovit_deploy.recipe.dynamic import ACDCPruningModifier, MovementPruningModifier, RigLPruningModifier
from ovit_deploy.recipe.filters import LayerThinningModifier, StructuredPruningModifier
from ovit_deploy.recipe.merging import TokenMergingModifier
from ovit_deploy.recipe.modifiers import (
    ConstantPruningModifier,
    DistillationModifier,
    EpochRangeModifier,
    LearningRateFunctionModifier,
    LearningRateModifier,
    PerLayerDistillationModifier,
    SetLearningRateModifier,
    SetWeightDecayModifier,
    TrainableParamsModifier,
)
from ovit_deploy.recipe.parameters import GradualParamModifier, SetParamModifier, SparsificationLoggingModifier
from ovit_deploy.recipe.pruners import (
    CAPruningModifier,
    FastCAPruningModifier,
    FastOViTPruningModifier,
    GlobalMagnitudePruningModifier,
    GMPruningModifier,
    GWProdPruningModifier,
    MagnitudePruningModifier,
    MFACPruningModifier,
    OBC_OBS_PruningModifier,
    OBCPruningModifier,
    OBSPruningModifier,
    OViTPruningModifier,
    SparseGPTPruningModifier,
    WandaPruningModifier,
)
from ovit_deploy.recipe.quantization import QuantizationModifier
from ovit_deploy.recipe.sparsifier import Sparsifier
from ovit_deploy.recipe.structured import (
    ChannelPruningModifier,
    DepthPruningModifier,
    EmbeddingPruningModifier,
    HeadPruningModifier,
    HeadWidthPruningModifier,
    StructuredModifier,
    WidthPruningModifier,
)


class ModelSection(Declaration):
    """The network: a timm name with its arguments, and the preprocessing it expects where timm has none."""

    name: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class Training(Declaration):
    """How the loop trains, where no modifier says otherwise."""

    batch_size: int = Field(128, ge=1, description="images that go through the model at once")
    accumulation_steps: int = Field(1, ge=1, description="batches whose gradients make one optimizer step")
    optimizer: str = "adamw"
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    no_decay: tuple[str, ...] = Field((), description="parameters without weight decay, beside biases and norms (*, ?)")
    layer_decay: float | None = Field(None, gt=0, le=1, description="learning rate of a layer by that of the next")
    momentum: float = Field(0.9, ge=0, lt=1, description="of optimizers that have one")
    betas: tuple[float, float] | None = Field(None, description="of Adam's family; by default the optimizer's")
    clip_gradient_norm: float | None = Field(1.0, gt=0)
    loss: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    ema_decay: float | None = Field(None, gt=0, lt=1, description="save an average of the weights instead of the last")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of products while training (autocast)")
    augmentation: NamedAugmentation = Augmentation()
    max_damaged_images: float = Field(
        0.01, ge=0, lt=1, description="share of the training images that may be unreadable, and are left out"
    )
    seed: int = Field(0, ge=0)

    @property
    def effective_batch_size(self) -> int:
        """Images of one optimizer step."""
        return self.batch_size * self.accumulation_steps

    @model_validator(mode="after")
    def _mixes_pairs(self) -> "Training":
        if self.augmentation.mixes and self.effective_batch_size % 2:
            raise ValueError("mixup and cutmix mix pairs of images: make batch_size even")
        return self


MODIFIERS: dict[str, type[Modifier]] = {
    kind.__name__: kind
    for kind in (
        EpochRangeModifier,
        SetLearningRateModifier,
        LearningRateFunctionModifier,
        LearningRateModifier,
        SetWeightDecayModifier,
        DistillationModifier,
        PerLayerDistillationModifier,
        TrainableParamsModifier,
        SetParamModifier,
        GradualParamModifier,
        SparsificationLoggingModifier,
        QuantizationModifier,
        ConstantPruningModifier,
        GMPruningModifier,
        MagnitudePruningModifier,
        GlobalMagnitudePruningModifier,
        OViTPruningModifier,
        CAPruningModifier,
        OBC_OBS_PruningModifier,
        FastOViTPruningModifier,
        FastCAPruningModifier,
        OBSPruningModifier,
        MFACPruningModifier,
        GWProdPruningModifier,
        SparseGPTPruningModifier,
        OBCPruningModifier,
        WandaPruningModifier,
        MovementPruningModifier,
        ACDCPruningModifier,
        RigLPruningModifier,
        HeadPruningModifier,
        WidthPruningModifier,
        HeadWidthPruningModifier,
        DepthPruningModifier,
        EmbeddingPruningModifier,
        ChannelPruningModifier,
        StructuredPruningModifier,
        LayerThinningModifier,
        TokenMergingModifier,
    )
}


Kind = TypeVar("Kind", bound=Modifier)


class Recipe(Declaration):
    """A whole recipe, checked."""

    source: str
    text: str
    # New values for the variables of the text.
    overrides: dict[str, str] = Field(default_factory=dict)
    modifiers: tuple[Modifier, ...]
    # Whose dates, ties and rates count where they differ from ours: `ovit_deploy.recipe.sparseml`.
    compat: Compat | None = None
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

    @property
    def prunes(self) -> bool:
        """Whether a modifier makes zeros or removes parts."""
        kinds = Sparsifier | StructuredModifier | LayerThinningModifier
        return any(isinstance(modifier, kinds) for modifier in self.modifiers)

    def only(self, kind: type[Kind], need: str, hint: str) -> Kind:
        """The one modifier of a kind.

        Args:
            kind: A class of modifiers.
            need: Who needs it, for the error.
            hint: What to do then.

        Raises:
            RecipeError: There is none, or there are several.
        """
        found = [modifier for modifier in self.modifiers if isinstance(modifier, kind)]
        if len(found) != 1:
            raise RecipeError(f"{self.source}: {need}, here are {len(found)}", hint)
        return found[0]
