"""Which pruning method a modifier stands for, with its settings."""

from dataclasses import replace
from pathlib import Path

from torch import nn

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
    OViT,
    SparseGPT,
    UniformMagnitude,
    Wanda,
    WoodFisher,
)
from ovit_deploy.recipe import mask_types, pruners
from ovit_deploy.recipe.pruners import (
    FisherPruningModifier,
    GradientPruningModifier,
    OViTPruningModifier,
    PruningModifier,
)


def method_of(
    modifier: PruningModifier,
    memory_budget: int | None,
    *,
    scratch: Path | None = None,
    average: FisherAverage | None = None,
) -> Method:
    """The pruning method that a modifier stands for.

    Args:
        modifier: The pruner of a recipe.
        memory_budget: In bytes.
        scratch: Folder for what does not fit in it, where the recipe says ``spill``.
        average: State of the moving average of Fisher matrices, where the recipe has one.

    Raises:
        PruningError: The recipe spills, and there is no folder to spill to.
    """
    if isinstance(modifier, FisherPruningModifier) and modifier.spill and scratch is None:
        raise PruningError("spill: there is no folder to spill to", "prune in a run, or leave spill out")
    method = _fisher_method(modifier, memory_budget, scratch, average) or _layerwise_method(modifier, memory_budget)
    if method is None:
        raise AssertionError(f"no method for {type(modifier).__name__}")
    return method


def calibrated(modifier: PruningModifier, calibration: Calibration, teacher: nn.Module | None) -> Calibration:
    """The calibration stream, with the loss whose gradients a modifier asks for."""
    if not isinstance(modifier, GradientPruningModifier):
        return calibration
    loss = Loss(modifier.labels, modifier.precision, teacher=teacher if modifier.labels == "teacher" else None)
    return replace(calibration, loss=loss, images_per_gradient=modifier.images_per_gradient)


def average_of(modifier: PruningModifier, averages: dict[str, FisherAverage], place: str) -> FisherAverage | None:
    """The moving average of a modifier that has one, begun at its first pruning."""
    if not isinstance(modifier, OViTPruningModifier) or modifier.fisher_ema == 0:
        return None
    return averages.setdefault(place, FisherAverage(modifier.fisher_ema))


def _fisher_method(
    modifier: PruningModifier, memory_budget: int | None, scratch: Path | None, average: FisherAverage | None
) -> Method | None:
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
                damping_kind=modifier.damping,
                spill=scratch if modifier.spill else None,
                average=average,
            )
        case pruners.OBSPruningModifier():
            return WoodFisher(
                modifier.fisher_block_size,
                modifier.num_grads,
                modifier.damp,
                memory_budget,
                damping_kind=modifier.damping,
                spill=scratch if modifier.spill else None,
            )
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
