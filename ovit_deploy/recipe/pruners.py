"""Modifiers that prune: one model a tag; `ovit_deploy.finetune.methods` says which method each stands for."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    field_validator,
    model_validator,
)

from ovit_deploy.recipe import mask_types
from ovit_deploy.recipe.declaration import Modifier, Selectors
from ovit_deploy.recipe.dialects import FROM_PARAM
from ovit_deploy.recipe.mask_types import MaskKind
from ovit_deploy.recipe.schedule import Interpolation

Fraction = Annotated[float, Field(ge=0, lt=1)]
MaskType = Annotated[str, BeforeValidator(mask_types.canonical)]
EVERY_STEP = -1
_MAX_UPDATES = 100_000
_NEAR = 1e-3


def _fraction_or_own(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    return value if value == FROM_PARAM else validate(value)


StartFraction = Annotated[
    Fraction,
    WrapValidator(_fraction_or_own),
    PlainSerializer(lambda value: value),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0, "exclusiveMaximum": 1}, {"const": FROM_PARAM, "type": "string"}]}
    ),
]


class PruningModifier(Modifier):
    """A gradual pruner: from ``init_sparsity`` to ``final_sparsity``, every ``update_frequency`` epochs."""

    masks: ClassVar[tuple[MaskKind, ...]] = ("unstructured",)

    params: Selectors
    init_sparsity: StartFraction
    final_sparsity: Fraction
    start_epoch: float = Field(ge=0)
    end_epoch: float = Field(ge=0)
    update_frequency: float
    inter_func: Interpolation = "cubic"
    mask_type: MaskType = "unstructured"
    leave_enabled: bool = True

    @property
    def num_images(self) -> int:
        """Calibration images that the method looks at; 0 if it looks at weights only."""
        return 0

    @property
    def starts_from_own(self) -> bool:
        """Whether pruning starts from the zeros that the targets have then."""
        return isinstance(self.init_sparsity, str)

    @property
    def first_sparsity(self) -> float:
        """Where pruning starts, as far as the recipe knows: ``__FROM_PARAM__`` counts as dense."""
        return 0.0 if self.starts_from_own else self.init_sparsity

    @model_validator(mode="after")
    def _grows(self) -> "PruningModifier":
        if self.final_sparsity < self.first_sparsity:
            raise ValueError(f"final_sparsity {self.final_sparsity:g} is below init_sparsity {self.first_sparsity:g}")
        return self

    @model_validator(mode="after")
    def _updates_at_dates(self) -> "PruningModifier":
        if (self.end_epoch - self.start) / self.update_frequency > _MAX_UPDATES:
            raise ValueError(f"update_frequency {self.update_frequency:g} makes more than {_MAX_UPDATES:,} prunings")
        return self

    @field_validator("update_frequency")
    @classmethod
    def _has_dates(cls, every: float) -> float:
        if every <= 0 and every != EVERY_STEP:
            raise ValueError("must be the epochs between two prunings, or -1 to prune at every step")
        return every

    @field_validator("mask_type")
    @classmethod
    def _can_be_pruned_to(cls, mask: str) -> str:
        if mask_types.parse(mask).kind not in cls.masks:
            raise ValueError(f"{mask} is not supported here; use {' or '.join(cls.masks)}")
        return mask

    @model_validator(mode="after")
    def _fits_its_mask(self) -> "PruningModifier":
        fixed = mask_types.parse(self.mask_type).sparsity
        asked = (self.first_sparsity, self.final_sparsity)
        if fixed is not None and any(abs(sparsity - fixed) > _NEAR for sparsity in asked):
            raise ValueError(f"{self.mask_type} has one sparsity: set init_sparsity and final_sparsity to {fixed:g}")
        return self

    @field_validator("leave_enabled")
    @classmethod
    def _keeps_zeros(cls, keeps: bool) -> bool:
        if not keeps:
            raise ValueError("false would let the zeros grow back after end_epoch; remove the key")
        return keeps


class GMPruningModifier(PruningModifier):
    """Gradual magnitude pruning (arXiv 1710.01878), per layer unless ``global_sparsity``."""

    masks: ClassVar[tuple[MaskKind, ...]] = mask_types.KINDS

    global_sparsity: bool = False
    phased: Literal[False] = False
    score_type: Literal["magnitude"] = "magnitude"


class MagnitudePruningModifier(GMPruningModifier):
    """Gradual magnitude pruning of each layer by itself: an older name of GMPruningModifier."""

    global_sparsity: Literal[False] = False


class GlobalMagnitudePruningModifier(PruningModifier):
    """Gradual magnitude pruning with one threshold for all layers."""

    masks: ClassVar[tuple[MaskKind, ...]] = mask_types.KINDS

    global_sparsity: Literal[True] = True


class GradientPruningModifier(PruningModifier):
    """A pruner that takes the gradients of ``num_grads`` training images."""

    num_grads: int = Field(4096, ge=1)

    @property
    def num_images(self) -> int:
        """One image a gradient."""
        return self.num_grads


class OViTPruningModifier(GradientPruningModifier):
    """oViT (arXiv 2210.09223): block Fisher, greedy joint elimination, exact global budget."""

    masks: ClassVar[tuple[MaskKind, ...]] = mask_types.KINDS

    fisher_block_size: int = Field(192, ge=1)
    damp: float = Field(1e-8, ge=0)
    num_recomputations: int = Field(1, ge=1)
    recomputation_inter_func: Literal["linear"] = "linear"
    allocation: Literal["hull", "marginal", "cumulative", "uniform"] = "hull"
    refine: bool = Field(False, description="swap weights inside each block afterwards, while it lowers the loss")
    global_sparsity: Literal[True] = True


class CAPruningModifier(OViTPruningModifier):
    """oViT as its second paper's recipes call it, with their defaults and the paper's allocation."""

    fisher_block_size: int = Field(50, ge=1)
    num_grads: int = Field(1024, ge=1)
    damp: float = Field(1e-7, ge=0)
    allocation: Literal["hull", "marginal", "cumulative", "uniform"] = "cumulative"


class OBSPruningModifier(GradientPruningModifier):
    """WoodFisher, oBERT (arXiv 2004.14340, 2203.07259): each weight judged once, summed single-weight updates."""

    num_grads: int = Field(1024, ge=1)
    fisher_block_size: int = Field(1, ge=1)
    damp: float = Field(1e-7, ge=0)
    num_recomputations: Literal[1] = 1
    global_sparsity: Literal[True] = True


class MFACPruningModifier(GradientPruningModifier):
    """M-FAC (arXiv 2107.03356): inverse-Fisher products from the gradients themselves, in large blocks."""

    num_grads: int = Field(64, ge=1)
    fisher_block_size: int = Field(2000, ge=1)
    damp: float = Field(1e-5, gt=0)
    global_sparsity: Literal[True]


class GWProdPruningModifier(GradientPruningModifier):
    """Gradient times weight: the smallest sums of abs(g w) over training images go, over all layers together."""

    num_grads: int = Field(1024, ge=1)
    global_sparsity: Literal[True] = True


class FastOViTPruningModifier(GradientPruningModifier):
    """FastOViT (arXiv 2210.09223, as FastCAP in its second version): one Fisher block shared by a layer, uniform."""

    masks: ClassVar[tuple[MaskKind, ...]] = ("unstructured", "N:M")

    num_grads: int = Field(256, ge=1)
    fisher_block_size: int = Field(192, ge=1)
    damp: float = Field(0.01, gt=0, description="relative to the mean diagonal")


class LayerwisePruningModifier(PruningModifier):
    """A pruner that looks at the inputs of layers over ``num_samples`` training images; every layer to one sparsity."""

    masks: ClassVar[tuple[MaskKind, ...]] = ("unstructured", "N:M")

    num_samples: int = Field(1024, ge=1)

    @property
    def num_images(self) -> int:
        """What its inputs come from."""
        return self.num_samples


class SparseGPTPruningModifier(LayerwisePruningModifier):
    """SparseGPT (arXiv 2301.00774): a sweep over the columns of each layer, on the Hessian of its inputs."""

    damp: float = Field(0.01, gt=0, description="relative to the mean diagonal")


class OBCPruningModifier(LayerwisePruningModifier):
    """ExactOBS (arXiv 2208.11580): greedy joint elimination in every row, on the Hessian of the layer's inputs."""

    masks: ClassVar[tuple[MaskKind, ...]] = ("unstructured",)

    damp: float = Field(0.01, gt=0, description="relative to the mean diagonal")


class WandaPruningModifier(LayerwisePruningModifier):
    """Wanda (arXiv 2306.11695): weights times the norm of their inputs, compared in every row; no update."""

    num_samples: int = Field(128, ge=1)
