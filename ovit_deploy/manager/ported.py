"""Gradual pruners written for SparseML, on this engine: the classes they derive from, with SparseML's names.

A pruner ports by its imports if it says *what* to prune and leaves *when* to its base class, that is, if it derives
from `BaseGradualPruningModifier` with an ``__init__``, ``_get_mask_creator`` and ``_get_scorer``. The scorer sees
gradients before each optimizer step (``pre_optim_step_update``) and masks as they change (``mask_update``). A class
that overrides SparseML's life cycle itself (``initialize``, ``update``, ``check_mask_update``, ...) is refused when it
registers: write it as a `Method` of `ovit_deploy.pruning` instead, which is shorter.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import model_validator
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.method import target_weights
from ovit_deploy.pruning.sparseml_magnitude import largest, largest_of_all
from ovit_deploy.recipe import mask_types
from ovit_deploy.recipe.mask_types import MaskKind
from ovit_deploy.recipe.pruners import PruningModifier

_SCHEDULE = {"min_start", "min_end", "end_comparator", "min_frequency", "parent_class_kwarg_names"}


def ModifierProp(serializable: bool = True) -> type[property]:  # noqa: N802 - SparseML's name
    """SparseML's property that a recipe shows; here every argument of ``__init__`` is shown."""
    return property


class PruningParamsScorer:
    """How much each weight is worth: `score_parameters` says it, the other methods are told what happens."""

    def __init__(self, params: Sequence[nn.Parameter]) -> None:
        self._params = params
        self._last_applied_sparsity = 0.0

    def score_parameters(self) -> list[Tensor]:
        """A score for each weight of each parameter; the smallest go."""
        raise NotImplementedError

    def pre_optim_step_update(self, masks: list[Tensor]) -> None:
        """Look at the gradients, before each optimizer step and before the pruning in it."""

    def mask_update(self, masks: list[Tensor], mask_diffs: list[Tensor]) -> None:
        """The masks (1.0 kept) are about to become ``masks``; -1 in a diff is newly pruned, 1 is back."""

    def update_last_applied_sparsity(self, sparsity: float) -> None:
        """The sparsity that the masks have now."""
        self._last_applied_sparsity = sparsity

    def check_regen_param_vals(self) -> None:
        """Follow the parameters to their device."""

    def on_pruning_end(self) -> None:
        """The last pruning is over."""


class PruningMaskCreator:
    """Scores -> masks."""

    def create_sparsity_masks(
        self, tensors: list[Tensor], target: float | list[float], global_sparsity: bool = False
    ) -> list[Tensor]:
        """A mask (1.0 kept, 0.0 pruned) for each tensor of scores, with the asked sparsity."""
        raise NotImplementedError


class UnstructuredPruningMaskCreator(PruningMaskCreator):
    """The smallest scores go, wherever they stand."""

    def create_sparsity_masks(
        self, tensors: list[Tensor], target: float | list[float], global_sparsity: bool = False
    ) -> list[Tensor]:
        """See `PruningMaskCreator`."""
        wanted = list(target) if isinstance(target, Sequence) else [target] * len(tensors)
        if global_sparsity:
            assert len(set(wanted)) == 1, wanted
            kept = largest_of_all(tensors, wanted[0])
        else:
            kept = [largest(score, sparsity) for score, sparsity in zip(tensors, wanted, strict=True)]
        return [mask.to(score.dtype) for mask, score in zip(kept, tensors, strict=True)]


class BaseGradualPruningModifier:
    """What SparseML's gradual pruners derive from. The schedule is the recipe's; subclasses say what goes."""

    def __init__(
        self,
        params: Any = "__ALL_PRUNABLE__",
        init_sparsity: Any = None,
        final_sparsity: Any = None,
        inter_func: str = "cubic",
        start_epoch: float = -1.0,
        end_epoch: float = -1.0,
        update_frequency: float = -1.0,
        global_sparsity: bool = False,
        allow_reintroduction: bool = False,
        leave_enabled: bool = True,
        **others: Any,
    ) -> None:
        unknown = others.keys() - _SCHEDULE
        if unknown or allow_reintroduction:
            word = ", ".join(sorted(unknown)) or "allow_reintroduction"
            raise PruningError(f"{type(self).__name__}: {word} is not supported", "leave it out of super().__init__")
        self._global_sparsity = global_sparsity

    @property
    def global_sparsity(self) -> bool:
        """Whether all tensors share one threshold."""
        return self._global_sparsity

    def _get_mask_creator(self, param_names: list[str], params: list[nn.Parameter]) -> PruningMaskCreator:
        raise NotImplementedError

    def _get_scorer(self, params: list[nn.Parameter]) -> PruningParamsScorer:
        raise NotImplementedError


class PortedModifier(PruningModifier):
    """A recipe's words for a ported pruner; `ovit_deploy.manager.register` makes a subclass for each."""

    masks: ClassVar[tuple[MaskKind, ...]] = mask_types.KINDS  # its mask creator knows better
    kind: ClassVar[type[BaseGradualPruningModifier]]
    takes: ClassVar[frozenset[str]]

    @model_validator(mode="after")
    def _takes_its_mask(self) -> "PortedModifier":
        if "mask_type" in self.model_fields_set - self.takes:
            raise ValueError("mask_type: this pruner has none")
        return self

    def tracking(self, model: nn.Module, names: Sequence[str]) -> "Tracking":
        """The pruner at work on the named parameters of ``model``."""
        arguments = {name: getattr(self, name) for name in type(self).model_fields if name in self.takes}
        return Tracking(self.kind(**arguments), model, names)


class Tracking:
    """A ported pruner at work: a `Method` that also sees every step."""

    def __init__(self, modifier: BaseGradualPruningModifier, model: nn.Module, names: Sequence[str]) -> None:
        self.parameters = {name: model.get_parameter(name) for name in names}
        parameters = list(self.parameters.values())
        self.modifier = modifier
        self.creator = modifier._get_mask_creator(list(names), parameters)
        self.scorer = modifier._get_scorer(parameters)
        self.masks = [torch.ones_like(parameter) for parameter in parameters]
        self.waits = type(self.scorer).pre_optim_step_update is not PruningParamsScorer.pre_optim_step_update

    def before_step(self) -> None:
        """Let the scorer see this step's gradients."""
        self.waits = False
        self.scorer.pre_optim_step_update(self.masks)

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """See :class:`ovit_deploy.pruning.method.Method`."""
        if self.waits:
            raise PruningError(
                f"{type(self.modifier).__name__} follows gradients, and has seen no step",
                "train with it, not in one shot",
            )
        weights = target_weights(model, masks)
        with torch.no_grad():
            found = self.creator.create_sparsity_masks(
                self.scorer.score_parameters(),
                target=[sparsity] * len(weights),
                global_sparsity=self.modifier.global_sparsity,
            )
            self.scorer.update_last_applied_sparsity(1 - float(torch.cat([m.flatten() for m in found]).mean()))
            self.scorer.mask_update(found, [new - old for new, old in zip(found, self.masks, strict=True)])
        self.masks = found
        kept = {name: mask.bool().view_as(weights[name]) for name, mask in zip(weights, found, strict=True)}
        return Pruned(kept, {name: weight.masked_fill(~kept[name], 0) for name, weight in weights.items()})
