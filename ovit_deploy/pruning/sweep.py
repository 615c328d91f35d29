"""Many sparsities of one model: what does not depend on the sparsity is done once.

A greedy elimination ranks every weight, so one pass over the gradients serves every sparsity (streaming.py): what
differs is how many weights each block loses, and what the others become. The same holds for a method that judges each
weight once. Where that is so, :meth:`Sweep.prepare` does it; the other methods start anew at each sparsity.

    OViT, without recomputations    gradients, Fisher blocks, elimination        once
    WoodFisher, MFAC                gradients, saliencies                        once
    GradientWeight                  gradients                                    once
    the others                      nothing is shared
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovit_deploy.pruning.allocation import Rule
from ovit_deploy.pruning.gradient_weight import GradientWeight
from ovit_deploy.pruning.method import Calibration, Masks, Method, Pruned, Report, num_zeros, target_weights
from ovit_deploy.pruning.mfac import MFAC
from ovit_deploy.pruning.ovit import OViT
from ovit_deploy.pruning.second_order import check_gradients, required, settle
from ovit_deploy.pruning.streaming import Problem, Solution, eliminate_all
from ovit_deploy.pruning.woodfisher import WoodFisher

Looked = tuple[dict[str, Tensor], float]


@dataclass(frozen=True)
class _Start:
    """The weights and masks that a sweep was prepared at, and what was found there."""

    weights: dict[str, Tensor]
    masks: Masks
    found: Solution | Looked

    def check(self, model: nn.Module, masks: Masks) -> None:
        """Whoever sweeps starts every sparsity from the same weights."""
        weights = target_weights(model, masks)
        assert weights.keys() == self.weights.keys()
        assert all(torch.equal(weights[name], self.weights[name]) for name in weights), "other weights"
        assert all(torch.equal(masks[name], self.masks[name]) for name in masks), "other masks"


class Sweep:
    """A :class:`~ovit_deploy.pruning.method.Method` for several sparsities of the same weights.

    Args:
        method: Whose prunings these are.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self._start: _Start | None = None

    @property
    def shares(self) -> bool:
        """Whether there is anything to do once."""
        return isinstance(self.method, GradientWeight) or _eliminates(self.method)

    def prepare(
        self, model: nn.Module, masks: Masks, *, calibration: Calibration | None = None, report: Report | None = None
    ) -> None:
        """Do what serves every sparsity; :meth:`prune` does so itself where it was not called before.

        Raises:
            PruningError: As of the method itself.
        """
        found: Solution | Looked | None = None
        if isinstance(self.method, GradientWeight):
            calibration = required(calibration, "gradient times weight", self.method.num_grads)
            found = self.method.look(model, masks, calibration, report)
        elif _eliminates(self.method):
            problem, _ = _problem(self.method, model, masks, calibration, report)
            check_gradients(model, masks, problem.calibration, problem.num_grads)
            problem.scheme.pattern.weights(model, masks)
            found = eliminate_all(problem)
        if found is not None:
            self._start = _Start(target_weights(model, masks), dict(masks), found)

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """See :class:`ovit_deploy.pruning.method.Method`: the answer of the method itself."""
        if not self.shares:
            return self.method.prune(model, masks, sparsity=sparsity, calibration=calibration, report=report)
        num_zeros(masks, sparsity)  # which refuses before the work begins
        if self._start is None:
            self.prepare(model, masks, calibration=calibration, report=report)
        assert self._start is not None
        self._start.check(model, masks)
        if isinstance(self.method, GradientWeight):
            assert isinstance(self._start.found, tuple)
            return self.method.choose(model, masks, self._start.found, sparsity, calibration)
        assert isinstance(self._start.found, Solution)
        problem, rule = _problem(self.method, model, masks, calibration, report)
        zeros = problem.scheme.pattern.num_zeros(masks, sparsity)
        return settle(problem, self._start.found, zeros, rule)


def _eliminates(method: Method) -> bool:
    """Whether one elimination serves every sparsity of a method."""
    return isinstance(method, WoodFisher | MFAC) or (isinstance(method, OViT) and method.num_recomputations == 1)


def _problem(
    method: Method, model: nn.Module, masks: Masks, calibration: Calibration | None, report: Report | None
) -> tuple[Problem, Rule]:
    """What a method takes through elimination, and how it spreads removals."""
    assert isinstance(method, OViT | WoodFisher | MFAC)
    calibration = required(calibration, type(method).__name__, method.num_grads)
    return method.problem(model, masks, calibration, report), method.allocation
