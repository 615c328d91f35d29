"""Movement pruning: weights that training moves towards zero go, whatever their size.

Sanh, Wolf, Rush, arXiv 2005.07683, hard movement pruning (section 4)::

    saliency    S = - sum_t g_t w_t     over the training steps t, g_t the gradient at w_t
    allocation  the smallest S of each target, or of all together
    update      none

A step of gradient descent moves w by -g, so S grows where a weight moves away from zero. The paper lets a pruned weight
come back while its score learns on; here a pruned weight is zero, its score stands still, and it stays pruned.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovit_deploy.pruning.magnitude import largest_of_all, largest_of_each, prune_by_scores
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.patterns import Pattern, parse_pattern


def add_movement(score: Tensor, weight: Tensor, gradient: Tensor) -> None:
    """Add one step's movement ``- g w`` to the score, in place."""
    score.addcmul_(gradient, weight, value=-1)


@dataclass(frozen=True)
class Movement:
    """The weights whose movement scores are smallest; of groups that go whole, the sums of their scores.

    Args:
        scores: S of every target, shaped like its weight.
        together: All targets are compared, instead of each going to the same sparsity.
        pattern: ``unstructured``, ``N:M`` or ``block4``: patterns.py.
    """

    scores: Mapping[str, Tensor]
    together: bool = False
    pattern: str = "unstructured"

    def __post_init__(self) -> None:
        parse_pattern(self.pattern)

    def prune(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float,
        calibration: Calibration | None = None,
        report: Report | None = None,
    ) -> Pruned:
        """See :class:`ovit_deploy.pruning.method.Method`; looks at no images."""
        assert masks.keys() <= self.scores.keys(), "a target without scores"
        pattern = parse_pattern(self.pattern)
        weights, zeros = pattern.weights(model, masks), pattern.num_zeros(masks, sparsity)
        places = ranked({name: self.scores[name] for name in masks}, masks, pattern)
        choose = (lambda scores, num, _: largest_of_all(scores, num)) if self.together else largest_of_each
        return prune_by_scores(weights, places, zeros, pattern, choose)


def ranked(scores: Masks, masks: Masks, pattern: Pattern) -> dict[str, Tensor]:
    """The place of each score, or of each whole group's sum, among those of all targets; -1 where pruned already.

    Scores may have any sign; places have none, and say the same about which of them are smallest.
    """
    groups = {name: score.reshape(-1, pattern.unit).sum(dim=1) for name, score in scores.items()}
    gone = {name: ~mask.reshape(-1, pattern.unit).any(dim=1) for name, mask in masks.items()}
    place = torch.cat(list(groups.values())).argsort(stable=True).argsort()
    parts = place.split([group.numel() for group in groups.values()])
    return {name: part.masked_fill(gone[name], -1) for name, part in zip(groups, parts, strict=True)}
