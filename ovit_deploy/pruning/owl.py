"""OWL: layers with more outliers stay denser.

"Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to High Sparsity", Yin et al.,
arXiv 2310.05175, section 3. With the scores of Wanda, A_ij = |w_ij| |x_j|_2, the outlier ratio of a layer is the share
of its weights that score more than M times the mean::

    D_l = #(A_ij > M mean(A)) / #A
    s_l = t - 2 lambda (D_l - min D) / (max D - min D)     t such that the total is met (shares.py)

A layer is one weight here; the paper's script takes all weights of a transformer block together as one layer. Weights
that are pruned already are no part of the distribution.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from ovit_deploy.pruning.hessian import Images, input_norms
from ovit_deploy.pruning.method import Masks


def outlier_offsets(
    model: nn.Module, masks: Masks, images: Images, *, threshold: float, spread: float
) -> dict[str, float]:
    """How far each layer's sparsity lies from that of the one with fewest outliers, none above 0.

    Args:
        model: At its present weights.
        masks: The targets.
        images: What the norms of inputs are taken over.
        threshold: M.
        spread: Lambda.
    """
    norms = input_norms(model, list(masks), images)
    ratios = {
        name: outlier_ratio(model.get_parameter(name).detach(), mask, norms[name], threshold)
        for name, mask in masks.items()
    }
    return offsets(ratios, spread)


def offsets(ratios: Mapping[str, float], spread: float) -> dict[str, float]:
    """``-2 lambda (D_l - min D) / (max D - min D)``; no offsets where all ratios are one."""
    least, most = min(ratios.values()), max(ratios.values())
    scale = 2 * spread / (most - least) if most > least else 0.0
    return {name: -scale * (ratio - least) for name, ratio in ratios.items()}


def outlier_ratio(weight: Tensor, mask: Tensor, norm_GI: Tensor, threshold: float) -> float:
    """Share of the kept weights that score more than ``threshold`` times their mean."""
    score_GOI = weight.reshape(len(norm_GI), -1, norm_GI.shape[1]).abs().double() * norm_GI[:, None, :]
    score = score_GOI.flatten()[mask.to(weight.device).flatten()]
    return float((score > threshold * score.mean()).double().mean()) if len(score) else 0.0
