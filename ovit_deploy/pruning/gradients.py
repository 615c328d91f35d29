"""Per-sample gradients of linear and convolutional weights from one batched forward and backward.

For a linear layer ``y_t = W a_t`` the gradient of one sample's loss is ``g = sum_t delta_t a_t^T``, with ``delta_t``
the gradient at ``y_t``. Samples do not meet in eval mode, so the backward of the summed loss leaves every sample's
deltas side by side: hooks take inputs and deltas, and any rows of any sample's gradient are one small matrix product
away. A convolution is the same with ``a`` its unfolded patches.

Shape suffixes: N samples, T tokens (or pixels), G groups of a convolution, O outputs and I inputs of a group.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovit_deploy.errors import NotFiniteError, PruningError
from ovit_deploy.pruning.loss import HARD, Loss

Layer = nn.Linear | nn.Conv2d
SAME = "Conv2dSame"  # timm's convolution whose padding depends on the size of the image


@dataclass(frozen=True)
class SampleGradients:
    """The gradients of one weight for each sample of a batch, as factors: nothing is multiplied out until asked for."""

    inputs_NTGI: Tensor
    deltas_NTGO: Tensor

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of every sample's gradient, the weight seen as a matrix: [N, stop - start, I]."""
        outputs = self.deltas_NTGO.shape[3]
        first, last = start // outputs, (stop - 1) // outputs + 1
        deltas_NTGO = self.deltas_NTGO[:, :, first:last]
        offset = start - first * outputs
        if last - first == 1:
            deltas_NTGO, offset = deltas_NTGO[..., offset : offset + stop - start], 0
        inputs_NGTI = self.inputs_NTGI[:, :, first:last].transpose(1, 2)
        product_NGOI = deltas_NTGO.permute(0, 2, 3, 1) @ inputs_NGTI
        return product_NGOI.flatten(1, 2)[:, offset : offset + stop - start]


Consume = Callable[[str, SampleGradients], None]


def sample_gradients(
    model: nn.Module,
    names: Iterable[str],
    images: Tensor,
    labels: Tensor,
    *,
    consume: Consume,
    loss: Loss = HARD,
    first: int = 0,
    images_per_gradient: int = 1,
) -> float:
    """Hand the per-sample gradients of the loss to ``consume``, weight by weight as the backward reaches them.

    Args:
        model: Left as it was found; put in eval mode meanwhile. No gradient is stored in it.
        names: Weights of ``nn.Linear`` and ``nn.Conv2d`` layers.
        images: A batch, samples first.
        labels: Class indices.
        consume: Called once for each weight.
        loss: Whose gradients.
        first: The number of the first image in the stream, which labels that are drawn depend on.
        images_per_gradient: n; a sample is n images that follow one another, its loss their mean. Divides the batch.

    Returns:
        The sum of the images' losses.

    Raises:
        PruningError: A layer is of another kind, not used exactly once, or a loss or gradient is not finite.
    """
    assert len(images) % images_per_gradient == 0
    layers = {name: layer_of(model, name) for name in names}
    forwards: list[str] = []
    backwards: list[str] = []

    def taken(name: str, gradients: SampleGradients) -> None:
        backwards.append(name)
        consume(name, gradients)

    with ExitStack() as stack:
        stack.enter_context(frozen(model))
        for name, layer in layers.items():
            watch = partial(watch_layer, name, len(images) // images_per_gradient, forwards, taken)
            stack.callback(layer.register_forward_hook(watch).remove)
        total = loss.summed(model, images, labels, first)
        check_used_once(layers, forwards)
        (total / images_per_gradient).backward()
    for name in layers:
        if name not in backwards:
            raise PruningError(f"the loss does not depend on {name}", "leave it out of the targets")
    return float(total.detach())


def layer_of(model: nn.Module, name: str) -> Layer:
    """The layer that owns a weight, if its inputs and gradients can be had."""
    path, _, attribute = name.rpartition(".")
    layer = model.get_submodule(path)
    known = type(layer).forward in (nn.Linear.forward, nn.Conv2d.forward) or type(layer).__name__ == SAME
    if attribute != "weight" or not known:
        raise PruningError(
            f"{name} belongs to a {type(layer).__name__}: inputs and per-sample gradients are known for the weights of "
            "nn.Linear and nn.Conv2d only",
            "leave it out of the targets, or prune it by magnitude",
        )
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        raise PruningError(
            f"{name}: padding with {layer.padding_mode} is not supported",
            "leave it out of the targets, or prune it by magnitude",
        )
    assert isinstance(layer, Layer)
    if layer.weight.dtype not in (torch.float32, torch.float64):
        raise PruningError(f"{name} is {layer.weight.dtype}: sums of squares need float32", "load the model in float32")
    return layer


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode, no parameter asks for a gradient; everything is put back at the end."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        model.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


def watch_layer(
    name: str,
    num_samples: int,
    forwards: list[str],
    taken: Consume,
    layer: Layer,
    args: tuple[Any, ...],
    output: Tensor,
) -> Tensor:
    """Forward hook: keep the input, and take the deltas when the backward brings them."""
    forwards.append(name)
    inputs = args[0].detach()

    def arrived(deltas: Tensor) -> None:
        if not bool(deltas.sum().isfinite()):
            raise NotFiniteError(
                f"the gradient at {name} is not finite",
                "check the checkpoint, and that images are normalised as the model expects",
            )
        taken(name, factors(layer, inputs, deltas, num_samples))

    if not output.requires_grad:
        output = output.detach().requires_grad_().clone()
    output.register_hook(arrived)
    return output


def factors(layer: Layer, inputs: Tensor, deltas: Tensor, num_samples: int) -> SampleGradients:
    """Inputs and deltas as [N, T, G, features], samples first, as precise as the weights.

    The images of a sample stand behind one another among its tokens.
    """
    inputs, deltas = (tensor.to(layer.weight.dtype) for tensor in (inputs, deltas))
    inputs_TGI = tokens(layer, inputs)
    groups = inputs_TGI.shape[1]
    if isinstance(layer, nn.Conv2d):
        deltas = deltas.flatten(2).transpose(1, 2)
    return SampleGradients(
        inputs_TGI.reshape(num_samples, -1, *inputs_TGI.shape[1:]),
        deltas.reshape(num_samples, -1, groups, deltas.shape[-1] // groups),
    )


def tokens(layer: Layer, inputs: Tensor) -> Tensor:
    """What meets a layer's weight, a row for each token or pixel, samples slowest: [T, G, I]."""
    groups = 1
    if isinstance(layer, nn.Conv2d):
        groups = layer.groups
        inputs = functional.pad(inputs, padding_of(layer, inputs))
        patches = functional.unfold(inputs, layer.kernel_size, layer.dilation, 0, layer.stride)
        inputs = patches.transpose(1, 2)
    return inputs.reshape(-1, groups, inputs.shape[-1] // groups)


def padding_of(layer: nn.Conv2d, inputs: Tensor) -> list[int]:
    """Zeros left, right, above and below: the layer's own, or TensorFlow's "same": outputs = ceil(inputs / stride)."""
    amounts = []
    for axis in (1, 0):  # torch.pad wants the last axis first
        size, stride, around = inputs.shape[2 + axis], layer.stride[axis], layer.padding
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        if around == "same" or type(layer).__name__ == SAME:
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            amounts += [total // 2, total - total // 2]
        else:
            amounts += [0 if isinstance(around, str) else around[axis]] * 2
    return amounts


def check_used_once(names: Iterable[str], forwards: list[str]) -> None:
    """A layer that runs twice sums two gradients, one that is bypassed has none: neither is treated."""
    for name in names:
        if forwards.count(name) != 1:
            raise PruningError(
                f"the layer of {name} ran {forwards.count(name)} times in one forward, not once",
                "leave it out of the targets, or prune it by magnitude",
            )


def check_against_autograd(model: nn.Module, names: Iterable[str], images: Tensor, labels: Tensor) -> None:
    """Compare the first sample's gradients, taken in a batch of two, with those autograd gives for it alone.

    Catches what hooks cannot see: weights used without their layer, and samples that are not the slowest dimension of
    an input. Autograd gets the sample twice: of a single one torch 2.14 computes wrong gradients in EfficientFormer,
    where a tensor of one sample fits two memory formats.
    """
    names = list(names)
    parameters = dict(model.named_parameters())
    with frozen(model):
        weights = [parameters[name].requires_grad_() for name in names]
        loss = HARD.summed(model, images[:1].repeat_interleave(2, 0), labels[:1].repeat_interleave(2, 0)) / 2
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    expected = dict(zip(names, gradients, strict=True))

    def compare(name: str, found: SampleGradients) -> None:
        expected_OI = expected.pop(name)
        if expected_OI is None:
            return
        expected_OI = expected_OI.flatten(1)
        gap = (found.rows(0, len(expected_OI))[0] - expected_OI).norm()
        if gap > 1e-2 * expected_OI.norm() + 1e-6:
            raise PruningError(
                f"per-sample gradients of {name} disagree with autograd: the model uses it in a way hooks do not see",
                "leave it out of the targets, or prune it by magnitude",
            )

    sample_gradients(model, names, images[:2], labels[:2], consume=compare)
