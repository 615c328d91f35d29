"""Drop path (stochastic depth, arXiv 1603.09382) on a model that was built without it."""

from timm.layers import DropPath, calculate_drop_path_rates
from torch import nn

from ovit_deploy.errors import RecipeError

_PLACES = ("drop_path", "drop_path1", "drop_path2")


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Give the blocks rates from 0 for the first to ``rate`` for the last, in a straight line, as timm does.

    Raises:
        RecipeError: the model has no blocks that can be dropped.
    """
    blocks = [module for module in model.modules() if _places(module)]
    if not blocks:
        raise RecipeError(
            f"augmentation.drop_path: {type(model).__name__} has no blocks that can be dropped",
            "set drop_path to 0 in training.augmentation",
        )
    for block, own in zip(blocks, calculate_drop_path_rates(rate, len(blocks)), strict=True):
        assert isinstance(own, float)
        for place in _places(block):
            setattr(block, place, DropPath(own) if own > 0 else nn.Identity())


def _places(module: nn.Module) -> list[str]:
    return [name for name in _PLACES if isinstance(getattr(module, name, None), nn.Identity | DropPath)]
