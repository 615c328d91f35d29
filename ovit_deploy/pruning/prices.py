"""What a weight of a layer is worth: prices by which allocation weighs layers.

A price source is a function that gives a number for each layer; a measured latency can be one as well.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ovit_deploy.pruning.hessian import Images, watch_inputs


def flops_per_weight(model: nn.Module, names: Sequence[str], images: Images) -> dict[str, float]:
    """Floating-point operations that a weight takes for an image: two for each token or output pixel it meets.

    Args:
        model: Run forward once over the images.
        names: Weights of ``nn.Linear`` and ``nn.Conv2d`` layers.
        images: One is enough.

    Raises:
        PruningError: A layer is of another kind, or does not run.
    """
    tokens = dict.fromkeys(names, 0)

    def count(name: str, x_TGI: Tensor) -> None:
        tokens[name] += len(x_TGI)

    watch_inputs(model, names, images, count)
    return {name: 2 * number / images.num_samples for name, number in tokens.items()}
