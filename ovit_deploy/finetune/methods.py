"""Which pruning method a modifier stands for, with its settings."""

from collections.abc import Mapping

from ovit_deploy.pruning import (
    MFAC,
    OBC,
    FastOViT,
    GlobalMagnitude,
    GradientWeight,
    Method,
    OViT,
    SparseGPT,
    SparseMLMagnitude,
    UniformMagnitude,
    Wanda,
    WoodFisher,
)
from ovit_deploy.recipe import mask_types, pruners
from ovit_deploy.recipe.pruners import PruningModifier

MAGNITUDE_MODIFIERS = (pruners.GMPruningModifier, pruners.GlobalMagnitudePruningModifier)


def method_of(modifier: PruningModifier, memory_budget: int | None) -> Method:
    """The pruning method that a modifier stands for; ``memory_budget`` in bytes."""
    method = _fisher_method(modifier, memory_budget) or _layerwise_method(modifier, memory_budget)
    if method is None and callable(own := getattr(modifier, "method", None)):
        method = own(memory_budget)
    if method is None:
        raise AssertionError(f"no method for {type(modifier).__name__}")
    return method


def sparseml_method_of(modifier: PruningModifier, wanted: Mapping[str, float] | None = None) -> SparseMLMagnitude:
    """SparseML's way to one of `MAGNITUDE_MODIFIERS`; ``wanted`` is a sparsity for each target."""
    assert isinstance(modifier, MAGNITUDE_MODIFIERS)
    return SparseMLMagnitude(_pattern(modifier), modifier.global_sparsity, wanted)


def _fisher_method(modifier: PruningModifier, memory_budget: int | None) -> Method | None:
    match modifier:
        case pruners.OViTPruningModifier():
            return OViT(
                block_size=modifier.fisher_block_size,
                num_grads=modifier.num_grads,
                damping=modifier.damp,
                allocation=modifier.allocation,
                num_recomputations=modifier.num_recomputations,
                memory_budget=memory_budget,
                pattern=_pattern(modifier),
                refine=modifier.refine,
            )
        case pruners.OBSPruningModifier():
            return WoodFisher(modifier.fisher_block_size, modifier.num_grads, modifier.damp, memory_budget)
        case pruners.MFACPruningModifier():
            return MFAC(modifier.fisher_block_size, modifier.num_grads, modifier.damp, memory_budget)
        case pruners.GWProdPruningModifier():
            return GradientWeight(modifier.num_grads, memory_budget)
        case pruners.FastOViTPruningModifier():
            return FastOViT(
                modifier.fisher_block_size, modifier.num_grads, modifier.damp, pattern=_kept_of_group(modifier)
            )
    return None


def _layerwise_method(modifier: PruningModifier, memory_budget: int | None) -> Method | None:
    match modifier:
        case pruners.SparseGPTPruningModifier():
            return SparseGPT(
                modifier.num_samples,
                modifier.damp,
                pattern=_kept_of_group(modifier),
                memory_budget=memory_budget,
            )
        case pruners.OBCPruningModifier():
            return OBC(modifier.num_samples, modifier.damp, memory_budget)
        case pruners.WandaPruningModifier():
            return Wanda(modifier.num_samples, pattern=_kept_of_group(modifier))
        case pruners.GlobalMagnitudePruningModifier():
            return GlobalMagnitude(_pattern(modifier))
        case pruners.GMPruningModifier():
            return (GlobalMagnitude if modifier.global_sparsity else UniformMagnitude)(_pattern(modifier))
    return None


def _pattern(modifier: PruningModifier) -> str:
    """The mask type as `ovit_deploy.pruning.patterns` spells it."""
    mask = mask_types.parse(modifier.mask_type)
    return f"block{mask.columns}" if mask.kind == "1xG" else modifier.mask_type


def _kept_of_group(modifier: PruningModifier) -> tuple[int, int] | None:
    """N and M of an N:M mask type; nothing for unstructured."""
    mask = mask_types.parse(modifier.mask_type)
    return (mask.kept, mask.group) if mask.kept is not None and mask.group is not None else None
