"""Which pruning method a modifier stands for, with its settings."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import (
    MFAC,
    OBC,
    Calibration,
    FastOViT,
    FisherAverage,
    GlobalMagnitude,
    GradientWeight,
    Loss,
    Method,
    Movement,
    OViT,
    SparseGPT,
    SparseMLMagnitude,
    SparseStart,
    Spread,
    UniformMagnitude,
    Wanda,
    WoodFisher,
)
from ovit_deploy.pruning.filters import FilterMagnitude
from ovit_deploy.recipe import dynamic, mask_types, pruners
from ovit_deploy.recipe.filters import AXES, StructuredPruningModifier
from ovit_deploy.recipe.pruners import (
    FisherPruningModifier,
    GradientPruningModifier,
    OViTPruningModifier,
    SpreadingModifier,
)
from ovit_deploy.recipe.sparsifier import Sparsifier

MAGNITUDE_MODIFIERS = (pruners.GMPruningModifier, pruners.GlobalMagnitudePruningModifier)


def method_of(
    modifier: Sparsifier,
    memory_budget: int | None,
    *,
    scratch: Path | None = None,
    average: FisherAverage | None = None,
    scores: dict[str, Tensor] | None = None,
) -> Method:
    """The pruning method that a modifier stands for.

    Args:
        modifier: The pruner of a recipe.
        memory_budget: In bytes.
        scratch: Folder for what does not fit in it, where the recipe says ``spill``.
        average: State of the moving average of Fisher matrices, where the recipe has one.
        scores: Of every step so far, for movement pruning.

    Raises:
        PruningError: The recipe spills, and there is no folder to spill to.
    """
    if isinstance(modifier, FisherPruningModifier) and modifier.spill and scratch is None:
        raise PruningError("spill: there is no folder to spill to", "prune in a run, or leave spill out")
    if isinstance(modifier, StructuredPruningModifier):
        return FilterMagnitude(AXES.index(modifier.mask_type), modifier.param_groups or ())
    if isinstance(modifier, SpreadingModifier):
        method = _fisher_method(modifier, memory_budget, scratch, average) or _layerwise_method(modifier, memory_budget)
    else:
        method = _dynamic_method(modifier, scores)
    if method is None and callable(own := getattr(modifier, "method", None)):
        method = own(memory_budget)
    if method is None:
        raise AssertionError(f"no method for {type(modifier).__name__}")
    return method


def calibrated(modifier: Sparsifier, calibration: Calibration, teacher: nn.Module | None) -> Calibration:
    """The calibration stream, with the loss whose gradients a modifier asks for."""
    if not isinstance(modifier, GradientPruningModifier):
        return calibration
    loss = Loss(modifier.labels, modifier.precision, teacher=teacher if modifier.labels == "teacher" else None)
    return replace(calibration, loss=loss, images_per_gradient=modifier.images_per_gradient)


def average_of(modifier: Sparsifier, averages: dict[str, FisherAverage], place: str) -> FisherAverage | None:
    """The moving average of a modifier that has one, begun at its first pruning."""
    if not isinstance(modifier, OViTPruningModifier) or modifier.fisher_ema == 0:
        return None
    return averages.setdefault(place, FisherAverage(modifier.fisher_ema))


def sparseml_method_of(modifier: Sparsifier, wanted: Mapping[str, float] | None = None) -> SparseMLMagnitude:
    """SparseML's way to one of `MAGNITUDE_MODIFIERS`; ``wanted`` is a sparsity for each target."""
    assert isinstance(modifier, MAGNITUDE_MODIFIERS)
    return SparseMLMagnitude(_pattern(modifier), modifier.global_sparsity, wanted)


def _fisher_method(
    modifier: SpreadingModifier, memory_budget: int | None, scratch: Path | None, average: FisherAverage | None
) -> Method | None:
    pattern, spread = _pattern(modifier), _spread(modifier)
    match modifier:
        case pruners.OViTPruningModifier():
            return OViT(
                block_size=modifier.fisher_block_size,
                num_grads=modifier.num_grads,
                damping=modifier.damp,
                allocation=modifier.allocation,
                num_recomputations=modifier.num_recomputations,
                memory_budget=memory_budget,
                pattern=pattern,
                refine=modifier.refine,
                spread=spread,
                damping_kind=modifier.damping,
                spill=scratch if modifier.spill else None,
                average=average,
                weight_bits=modifier.weight_bits,
            )
        case pruners.OBSPruningModifier():
            return WoodFisher(
                modifier.fisher_block_size,
                modifier.num_grads,
                modifier.damp,
                memory_budget,
                pattern=pattern,
                allocation=modifier.allocation,
                spread=spread,
                damping_kind=modifier.damping,
                spill=scratch if modifier.spill else None,
            )
        case pruners.MFACPruningModifier():
            return MFAC(
                modifier.fisher_block_size,
                modifier.num_grads,
                modifier.damp,
                memory_budget,
                pattern=pattern,
                allocation=modifier.allocation,
                spread=spread,
            )
        case pruners.GWProdPruningModifier():
            return GradientWeight(
                modifier.num_grads, memory_budget, pattern=pattern, allocation=modifier.allocation, spread=spread
            )
        case pruners.FastOViTPruningModifier():
            return FastOViT(
                modifier.fisher_block_size,
                modifier.num_grads,
                modifier.damp,
                pattern=pattern,
                allocation=modifier.allocation,
                spread=spread,
                damping_kind="absolute" if isinstance(modifier, pruners.FastCAPruningModifier) else "relative",
            )
    return None


def _layerwise_method(modifier: SpreadingModifier, memory_budget: int | None) -> Method | None:
    pattern, spread = _pattern(modifier), _spread(modifier)
    match modifier:
        case pruners.SparseGPTPruningModifier():
            return SparseGPT(
                modifier.num_samples,
                modifier.damp,
                pattern=pattern,
                memory_budget=memory_budget,
                allocation=modifier.allocation,
                spread=spread,
            )
        case pruners.OBCPruningModifier():
            return OBC(
                modifier.num_samples,
                modifier.damp,
                memory_budget,
                pattern=pattern,
                allocation=modifier.allocation,
                spread=spread,
            )
        case pruners.WandaPruningModifier():
            return Wanda(modifier.num_samples, pattern=pattern, allocation=modifier.allocation, spread=spread)
        case pruners.GMPruningModifier(global_sparsity=False):
            return UniformMagnitude(pattern, modifier.allocation, spread)
        case pruners.GlobalMagnitudePruningModifier() | pruners.GMPruningModifier():
            return GlobalMagnitude(pattern, spread)
    return None


def _dynamic_method(modifier: Sparsifier, scores: dict[str, Tensor] | None) -> Method | None:
    match modifier:
        case dynamic.MovementPruningModifier():
            assert scores is not None, "no step has been scored"
            return Movement(scores, modifier.global_sparsity, _pattern(modifier))
        case dynamic.ACDCPruningModifier():
            return (GlobalMagnitude if modifier.global_sparsity else UniformMagnitude)(_pattern(modifier))
        case dynamic.RigLPruningModifier():
            return SparseStart(modifier.sparsity_strategy)
    return None


def _pattern(modifier: Sparsifier) -> str:
    """The mask type as `ovit_deploy.pruning.patterns` spells it."""
    mask = mask_types.parse(modifier.mask_type)
    return {"1xG": f"block{mask.columns}", "unstructured": "unstructured"}.get(mask.kind, modifier.mask_type)


def _spread(modifier: SpreadingModifier) -> Spread:
    """Bounds, prices and the settings of OWL."""
    return Spread(
        min_sparsity=modifier.min_sparsity,
        max_sparsity=modifier.max_sparsity,
        price=modifier.price,
        owl_threshold=modifier.owl_threshold,
        owl_range=modifier.owl_range,
        owl_samples=modifier.owl_samples,
    )
