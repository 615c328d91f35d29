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

from torch import Tensor, nn

from ovit_deploy.pruning.magnitude import prune_by_losses
from ovit_deploy.pruning.method import Calibration, Masks, Pruned, Report
from ovit_deploy.pruning.patterns import parse_pattern
from ovit_deploy.pruning.spread import FREE


def add_movement(score: Tensor, weight: Tensor, gradient: Tensor) -> None:
    """Add one step's movement ``- g w`` to the score, in place."""
    score.addcmul_(gradient, weight, value=-1)


@dataclass(frozen=True)
class Movement:
    """The weights whose movement scores are smallest; of groups that go whole, the sums of their scores.

    Args:
        scores: S of every target, shaped like its weight.
        together: All targets are compared, instead of each going to the same sparsity.
        pattern: ``unstructured``, ``N:M``, ``block4`` or ``RxC``: patterns.py.
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
        pattern = parse_pattern(self.pattern).on(masks)
        rule = "marginal" if self.together else "uniform"
        layers = FREE.layers(model, masks, rule=rule, pattern=pattern, calibration=None)
        weights, zeros = pattern.weights(model, masks), pattern.num_zeros(masks, sparsity)
        losses = above_zero({name: self.scores[name] for name in masks})
        return prune_by_losses(weights, masks, losses, zeros, pattern=pattern, rule=rule, layers=layers)


def above_zero(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scores, which may have any sign, over the smallest of all; they say the same about which are smallest."""
    least = min(score.min() for score in scores.values()).double()
    return {name: score.double() - least for name, score in scores.items()}
