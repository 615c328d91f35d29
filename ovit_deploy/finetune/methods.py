"""Which pruning method a modifier stands for, with its settings."""

from ovit_deploy.pruning import (
    MFAC,
    OBC,
    FastOViT,
    GlobalMagnitude,
    GradientWeight,
    Method,
    OViT,
    SparseGPT,
    Spread,
    UniformMagnitude,
    Wanda,
    WoodFisher,
)
from ovit_deploy.recipe import mask_types, pruners
from ovit_deploy.recipe.pruners import PruningModifier


def method_of(modifier: PruningModifier, memory_budget: int | None) -> Method:
    """The pruning method that a modifier stands for; ``memory_budget`` in bytes."""
    method = _fisher_method(modifier, memory_budget) or _layerwise_method(modifier, memory_budget)
    if method is None:
        raise AssertionError(f"no method for {type(modifier).__name__}")
    return method


def _fisher_method(modifier: PruningModifier, memory_budget: int | None) -> Method | None:
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
            )
    return None


def _layerwise_method(modifier: PruningModifier, memory_budget: int | None) -> Method | None:
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


def _pattern(modifier: PruningModifier) -> str:
    """The mask type as `ovit_deploy.pruning.patterns` spells it."""
    mask = mask_types.parse(modifier.mask_type)
    return {"1xG": f"block{mask.columns}", "unstructured": "unstructured"}.get(mask.kind, modifier.mask_type)


def _spread(modifier: PruningModifier) -> Spread:
    """Bounds, prices and the settings of OWL."""
    assert isinstance(modifier, pruners.SpreadingModifier)
    return Spread(
        min_sparsity=modifier.min_sparsity,
        max_sparsity=modifier.max_sparsity,
        price=modifier.price,
        owl_threshold=modifier.owl_threshold,
        owl_range=modifier.owl_range,
        owl_samples=modifier.owl_samples,
    )
