"""SparseML's Python API on this package's engine: training scripts and pruners port by changing their imports.

    sparseml.pytorch.optim.ScheduledModifierManager                 -> ovit_deploy.manager.ScheduledModifierManager
    sparseml.pytorch.sparsification.PyTorchModifierYAML, ...        -> ovit_deploy.manager.PyTorchModifierYAML, ...
    sparseml.pytorch.sparsification.pruning.PruningParamsScorer ... -> ovit_deploy.manager.PruningParamsScorer, ...

The recipe's timeline and its actions are those of ``ovit-deploy prune``; only who drives the loop differs. What a
pruner of one's own needs is in `ovit_deploy.manager.register` (short) and `ovit_deploy.manager.ported` (SparseML's).
"""

from ovit_deploy.manager.manager import ScheduledModifierManager
from ovit_deploy.manager.ported import (
    BaseGradualPruningModifier,
    ModifierProp,
    PruningMaskCreator,
    PruningParamsScorer,
    UnstructuredPruningMaskCreator,
)
from ovit_deploy.manager.register import PyTorchModifierYAML, register_modifier
from ovit_deploy.manager.step import RecipeManagerStepWrapper

__all__ = [
    "BaseGradualPruningModifier",
    "ModifierProp",
    "PruningMaskCreator",
    "PruningParamsScorer",
    "PyTorchModifierYAML",
    "RecipeManagerStepWrapper",
    "ScheduledModifierManager",
    "UnstructuredPruningMaskCreator",
    "register_modifier",
]
