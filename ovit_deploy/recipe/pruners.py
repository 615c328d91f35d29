"""Modifiers that prune: one model a tag; `ovit_deploy.finetune.methods` says which method each stands for."""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    field_validator,
    model_validator,
)

from ovit_deploy.recipe import mask_types
from ovit_deploy.recipe.dialects import FROM_PARAM
from ovit_deploy.recipe.mask_types import MaskKind
from ovit_deploy.recipe.schedule import Interpolation
from ovit_deploy.recipe.sparsifier import Fraction, Sparsifier

Share = Annotated[float, Field(ge=0, le=1)]
Price = Literal["weights", "flops"]
LayerRule = Literal["uniform", "erk", "owl"]
Rule = Literal["hull", "marginal", "cumulative", "uniform", "erk", "owl"]
LAYER_RULES = get_args(LayerRule)
EVERY_STEP = -1


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


class PruningModifier(Sparsifier):
    """A gradual pruner: from ``init_sparsity`` to ``final_sparsity``, every ``update_frequency`` epochs."""

    init_sparsity: StartFraction
    final_sparsity: Fraction
    inter_func: Interpolation = "cubic"

    @property
    def starts_from_own(self) -> bool:
        """Whether pruning starts from the zeros that the targets have then."""
        return isinstance(self.init_sparsity, str)

    @property
    def first_sparsity(self) -> float:
        """Where pruning starts, as far as the recipe knows: ``__FROM_PARAM__`` counts as dense."""
        return 0.0 if self.starts_from_own else self.init_sparsity

    @field_validator("update_frequency")
    @classmethod
    def _has_dates(cls, every: float) -> float:
        if every <= 0 and every != EVERY_STEP:
            raise ValueError("must be the epochs between two prunings, or -1 to prune at every step")
        return every

    @property
    def sparsities(self) -> tuple[float, ...]:
        """The first and the final sparsity."""
        return self.first_sparsity, self.final_sparsity

    @model_validator(mode="after")
    def _grows(self) -> "PruningModifier":
        if self.final_sparsity < self.first_sparsity:
            raise ValueError(f"final_sparsity {self.final_sparsity:g} is below init_sparsity {self.first_sparsity:g}")
        return self


class SpreadingModifier(PruningModifier):
    """A pruner that spreads zeros over layers: bounds, prices, and the settings of OWL (arXiv 2310.05175).

    Bounds hold at every pruning; a mapping is from selectors among the targets to numbers.
    """

    masks: ClassVar[tuple[MaskKind, ...]] = mask_types.KINDS

    min_sparsity: Share | dict[str, Share] = Field(0.0, description="of every layer, or of some by selectors")
    max_sparsity: Share | dict[str, Share] = Field(1.0, description="of every layer, or of some by selectors")
    price: Price = Field("weights", description="what a zero is worth: the same everywhere, or its FLOPs")
    owl_threshold: float = Field(5.0, gt=0, description="M: outliers score so many times the mean of their layer")
    owl_range: float = Field(0.08, ge=0, le=0.5, description="lambda: sparsities lie within twice this")
    owl_samples: int = Field(128, ge=1)

    @property
    def rule(self) -> str:
        """How zeros are spread over layers."""
        return "marginal"

    @property
    def num_images(self) -> int:
        """What allocation looks at."""
        return max(self.owl_samples if self.rule == "owl" else 0, 0 if self.price == "weights" else 1)

    @model_validator(mode="after")
    def _can_be_spread(self) -> "SpreadingModifier":
        if self.price != "weights" and self.rule in LAYER_RULES:
            raise ValueError(f"price has no meaning with {self.rule} shares; remove it, or prune globally")
        bounded = self.min_sparsity != 0 or self.max_sparsity != 1
        if mask_types.parse(self.mask_type).sparsity is not None and (bounded or self.rule in ("erk", "owl")):
            raise ValueError(f"{self.mask_type} gives every layer the same sparsity: remove allocation and bounds")
        least = self.min_sparsity if isinstance(self.min_sparsity, float) and not self.starts_from_own else 0.0
        if least > self.first_sparsity:
            raise ValueError(f"init_sparsity {self.first_sparsity:g} is below min_sparsity {least:g}")
        if isinstance(self.max_sparsity, float) and self.max_sparsity < self.final_sparsity:
            raise ValueError(f"final_sparsity {self.final_sparsity:g} is above max_sparsity {self.max_sparsity:g}")
        return self


class GMPruningModifier(SpreadingModifier):
    """Gradual magnitude pruning (arXiv 1710.01878), per layer unless ``global_sparsity``."""

    allocation: LayerRule = "uniform"
    global_sparsity: bool = False
    phased: Literal[False] = False
    score_type: Literal["magnitude"] = "magnitude"

    @property
    def rule(self) -> str:
        """One threshold for all layers, or shares of each."""
        return "marginal" if self.global_sparsity else self.allocation

    @model_validator(mode="after")
    def _shares_or_threshold(self) -> "GMPruningModifier":
        if self.global_sparsity and "allocation" in self.model_fields_set:
            raise ValueError(f"allocation {self.allocation} needs global_sparsity: false")
        return self


class MagnitudePruningModifier(GMPruningModifier):
    """Gradual magnitude pruning of each layer by itself: an older name of GMPruningModifier."""

    global_sparsity: Literal[False] = False


class GlobalMagnitudePruningModifier(SpreadingModifier):
    """Gradual magnitude pruning with one threshold for all layers."""

    global_sparsity: Literal[True] = True


class GradientPruningModifier(SpreadingModifier):
    """A pruner that takes ``num_grads`` gradients of training images."""

    num_grads: int = Field(4096, ge=1)
    images_per_gradient: int = Field(1, ge=1, description="a gradient is that of the mean loss of so many images")
    labels: Literal["hard", "sampled", "teacher"] = Field(
        "hard", description="the data's, drawn from the model's own softmax, or the dense model's softmax"
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the products that make gradients")
    allocation: Rule = "marginal"

    @property
    def rule(self) -> str:
        """As it says."""
        return self.allocation

    @property
    def num_images(self) -> int:
        """All images of all gradients, or what allocation looks at."""
        return max(self.num_grads * self.images_per_gradient, super().num_images)


class FisherPruningModifier(GradientPruningModifier):
    """A pruner with a Fisher matrix of each block of weights, ``damp`` on its diagonal."""

    damp: float = Field(1e-8, ge=0)
    damping: Literal["absolute", "relative", "robust"] = Field(
        "absolute",
        description="what damp is a multiple of: 1, a block's mean diagonal, or the noise of its gradients",
    )
    spill: bool = Field(False, description="what the memory budget does not hold goes to disk instead of being redone")

    @model_validator(mode="after")
    def _damps_in_its_own_unit(self) -> "FisherPruningModifier":
        if self.damping != "absolute" and "damp" not in self.model_fields_set:
            raise ValueError(f"damping: {self.damping} needs a damp of its own, such as damp: 0.01")
        return self


class OViTPruningModifier(FisherPruningModifier):
    """oViT (arXiv 2210.09223): block Fisher, greedy joint elimination, exact global budget."""

    fisher_block_size: int = Field(192, ge=1)
    damp: float = Field(1e-8, ge=0)
    num_recomputations: int = Field(1, ge=1)
    recomputation_inter_func: Literal["linear"] = "linear"
    allocation: Rule = "hull"
    refine: bool = Field(False, description="swap weights inside each block afterwards, while it lowers the loss")
    fisher_ema: float = Field(0.0, ge=0, lt=1, description="weight of the Fisher matrices of the prunings before")
    weight_bits: int | None = Field(
        None, ge=2, le=8, description="round kept weights to integers, each error made up for by the others"
    )
    global_sparsity: Literal[True] = True

    @model_validator(mode="after")
    def _rounds_last(self) -> "OViTPruningModifier":
        if self.weight_bits is None:
            return self
        if self.start_epoch != self.end_epoch or self.num_recomputations > 1:
            raise ValueError("weight_bits rounds once: prune once, end_epoch = start_epoch, without recomputations")
        if self.heal_samples:
            raise ValueError("heal_samples refits weights that weight_bits has rounded: remove one of them")
        return self


class CAPruningModifier(OViTPruningModifier):
    """oViT as its second paper's recipes call it, with their defaults and the paper's allocation."""

    fisher_block_size: int = Field(50, ge=1)
    num_grads: int = Field(1024, ge=1)
    damp: float = Field(1e-7, ge=0)
    allocation: Rule = "cumulative"


class OBC_OBS_PruningModifier(CAPruningModifier):  # noqa: N801 - the tag
    """CAP by its earlier name."""


class OBSPruningModifier(FisherPruningModifier):
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

    allocation: LayerRule = "uniform"
    num_grads: int = Field(256, ge=1)
    fisher_block_size: int = Field(192, ge=1)
    damp: float = Field(0.01, gt=0, description="relative to the mean diagonal")


class FastCAPruningModifier(FastOViTPruningModifier):
    """FastOViT as CAP's recipes call it, with their defaults: damping is a number, not a share of the mean diagonal."""

    num_grads: int = Field(1024, ge=1)
    fisher_block_size: int = Field(50, ge=1)
    damp: float = Field(1e-7, gt=0, description="added to the diagonal")
    block_size: None = None
    global_sparsity: Literal[False] = False


class LayerwisePruningModifier(SpreadingModifier):
    """A pruner that looks at the inputs of layers over ``num_samples`` training images; layers by their shares."""

    allocation: LayerRule = "uniform"
    num_samples: int = Field(1024, ge=1)

    @property
    def rule(self) -> str:
        """As it says."""
        return self.allocation

    @property
    def num_images(self) -> int:
        """What its inputs come from, or what allocation looks at."""
        return max(self.num_samples, super().num_images)


class SparseGPTPruningModifier(LayerwisePruningModifier):
    """SparseGPT (arXiv 2301.00774): a sweep over the columns of each layer, on the Hessian of its inputs."""

    damp: float = Field(0.01, gt=0, description="relative to the mean diagonal")


class OBCPruningModifier(LayerwisePruningModifier):
    """ExactOBS (arXiv 2208.11580): greedy joint elimination in every row, on the Hessian of the layer's inputs."""

    masks: ClassVar[tuple[MaskKind, ...]] = mask_types.OF_ONE_ROW

    damp: float = Field(0.01, gt=0, description="relative to the mean diagonal")


class WandaPruningModifier(LayerwisePruningModifier):
    """Wanda (arXiv 2306.11695): weights times the norm of their inputs, compared in every row; no update."""

    num_samples: int = Field(128, ge=1)
