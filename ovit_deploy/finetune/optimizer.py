"""The optimizer of a recipe: timm's, and which parameters decay and how fast each layer learns."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.schema import Training


def optimizer_for(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """timm's optimizer of that name.

    No weight decay on biases, norms, what the model exempts (``no_weight_decay()``: position embeddings, tokens) and
    what the recipe names. With ``layer_decay`` d the rate of layer l of L is multiplied by d^(L - l) (BEiT, arXiv
    2106.08254).

    Raises:
        RecipeError: timm has no such optimizer, or it has no betas.
    """
    settings: dict[str, Any] = {} if training.betas is None else {"betas": training.betas}
    try:
        optimizer = create_optimizer_v2(
            model,
            opt=training.optimizer,
            lr=training.learning_rate,
            momentum=training.momentum,
            param_group_fn=lambda whole: _groups(whole, training),
            **settings,
        )
    except (ValueError, TypeError) as error:
        raise RecipeError(f"training.optimizer: {error}", "for example adamw, sgd, lamb") from error
    if training.betas is not None and "betas" not in optimizer.defaults:  # timm leaves them out without a word
        raise RecipeError(f"training.betas: {training.optimizer} has none", "remove the key, or use adamw")
    return optimizer


def _groups(model: nn.Module, training: Training) -> list[dict[str, Any]]:
    own: Any = getattr(model, "no_weight_decay", tuple)
    exempt = {*own(), *training.no_decay}
    if training.layer_decay is None:
        return param_groups_weight_decay(model, training.weight_decay, no_weight_decay_list=exempt)
    return param_groups_layer_decay(
        model, training.weight_decay, no_weight_decay_list=exempt, layer_decay=training.layer_decay
    )
