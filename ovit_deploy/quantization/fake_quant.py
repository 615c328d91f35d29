"""Fake quantization: values rounded to integers times a scale, in floating point (Jacob et al., arXiv 1712.05877).

    q = clamp(round(x / scale) + zero_point, q_min, q_max)        x' = (q - zero_point) * scale

A symmetric range has zero point 0 and int8 (so a pruned zero stays exactly zero), any other uint8. Gradients pass
straight through where x is inside the range and are zero outside; torch's own kernels do both.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ovit_deploy.errors import TrainingError
from ovit_deploy.quantization.observers import OBSERVERS
from ovit_deploy.recipe.quantization import TensorScheme

_SMALLEST_SCALE = 2.0**-64  # its inverse is finite in float32


def limits(scheme: TensorScheme) -> tuple[int, int]:
    """The smallest and the largest integer."""
    half = 2 ** (scheme.num_bits - 1)
    return (-half, half - 1) if scheme.symmetric else (0, 2 * half - 1)


def affine(low: Tensor, high: Tensor, scheme: TensorScheme) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (int32) of the range from ``low`` to ``high``, widened to hold zero.

    A range of nothing but zero gets the scale 1.
    """
    q_min, q_max = limits(scheme)
    low, high = low.clamp(max=0), high.clamp(min=0)
    if scheme.symmetric:
        scale = torch.maximum(-low, high) / q_max
        zero_point = torch.zeros_like(scale)
    else:
        scale = (high - low) / (q_max - q_min)
        zero_point = -low / torch.where(scale > 0, scale, 1.0)
    scale = torch.where(scale > 0, scale.clamp(min=_SMALLEST_SCALE), 1.0)
    return scale, zero_point.round().clamp(q_min, q_max).to(torch.int32)


def rounded(x: Tensor, scale: Tensor, zero_point: Tensor, scheme: TensorScheme) -> Tensor:
    """``x`` on the grid of ``scale``: one for all of it, or one an entry of its first dimension."""
    q_min, q_max = limits(scheme)
    if scale.ndim:
        return torch.fake_quantize_per_channel_affine(x, scale, zero_point, 0, q_min, q_max)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, q_min, q_max)


class FakeQuantize(nn.Module):
    """Rounds what goes through it to the range seen so far.

    Activations are observed in training mode only, so that nothing is learnt from test images; the range of weights
    is that of the weights as they are.

    Args:
        scheme: bits, symmetry and observer.
        num_channels: of a weight whose first dimension has a scale each; None for one scale.
        of_weight: whether it quantizes a weight.
    """

    low: Tensor
    high: Tensor

    def __init__(self, scheme: TensorScheme, *, num_channels: int | None = None, of_weight: bool = False) -> None:
        super().__init__()
        self.scheme = scheme
        self.of_weight = of_weight
        self.observing = True
        shape = () if num_channels is None else (num_channels,)
        self.register_buffer("low", torch.full(shape, torch.inf))
        self.register_buffer("high", torch.full(shape, -torch.inf))

    def forward(self, x: Tensor) -> Tensor:
        """``x``, rounded."""
        if self.observing and (self.training or self.of_weight):
            self.observe(x)
        scale, zero_point = self.affine()
        return rounded(x.float(), scale, zero_point, self.scheme).to(x.dtype)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point.

        Raises:
            TrainingError: nothing was observed yet.
        """
        if not torch.isfinite(self.low).all():
            raise TrainingError(
                "a quantized activation was never observed", "train after start_epoch, or give num_calibration_steps"
            )
        return affine(self.low, self.high, self.scheme)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take ``x`` into the range."""
        observer = OBSERVERS[self.scheme.observer]
        x_CN = x.detach().float().reshape(max(self.low.numel(), 1) if self.low.ndim else 1, -1)
        low, high = (end.reshape(self.low.shape) for end in observer.of_batch(x_CN, self._trial))
        if not self.of_weight and torch.isfinite(self.low).all():
            low, high = observer.merge((self.low, self.high), (low, high))
        self.low.copy_(low)
        self.high.copy_(high)

    def _trial(self, x_CN: Tensor, low_C: Tensor, high_C: Tensor) -> Tensor:
        return rounded(x_CN, *affine(low_C, high_C, self.scheme), self.scheme)

    def extra_repr(self) -> str:
        """Bits, symmetry and observer, for print(model)."""
        form = "symmetric" if self.scheme.symmetric else "asymmetric"
        return f"{self.scheme.num_bits} bits, {form}, {self.scheme.observer}"


class FixedQuantize(nn.Module):
    """A `FakeQuantize` at its end: a constant scale. Exported, it is QuantizeLinear and DequantizeLinear."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor, zero_point: Tensor, scheme: TensorScheme) -> None:
        super().__init__()
        self.scheme = scheme
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point.to(torch.int8 if scheme.symmetric else torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """``x``, rounded."""
        if not torch.onnx.is_in_onnx_export():
            return rounded(x, self.scale, self.zero_point.to(torch.int32), self.scheme)
        axis: dict[str, Any] = {"axis": 0} if self.scale.ndim else {}
        grid = [self.scale, self.zero_point]
        stored = torch.onnx.ops.symbolic("QuantizeLinear", [x, *grid], axis, dtype=self.zero_point.dtype, shape=x.shape)
        return torch.onnx.ops.symbolic("DequantizeLinear", [stored, *grid], axis, dtype=x.dtype, shape=x.shape)


@torch.no_grad()
def fixed(model: nn.Module) -> nn.Module:
    """``model``, changed in place: every `FakeQuantize` a `FixedQuantize`, every quantized weight on its grid.

    Weights of fewer than eight bits are integers of eight afterwards, none beyond their own limits. Biases of products
    of two quantized factors become multiples of the product of their scales, which engines that add them to the
    integers round them to (Jacob et al., section 2.4). A model without quantization stays as it is.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, FakeQuantize):
                continue
            if child.of_weight:
                weight = parent.get_parameter("weight")
                if child.observing:
                    child.observe(weight)
                weight.copy_(rounded(weight, *child.affine(), child.scheme))
            setattr(parent, name, FixedQuantize(*child.affine(), child.scheme))
        _round_bias(parent)
    return model


def _round_bias(layer: nn.Module) -> None:
    """The bias of a product of two fixed factors becomes a multiple of the product of their scales."""
    factors = [getattr(layer, f"{factor}_quantizer", None) for factor in ("input", "weight")]
    scales = [factor.scale for factor in factors if isinstance(factor, FixedQuantize)]
    bias = dict(layer.named_parameters(recurse=False)).get("bias")
    if bias is not None and len(scales) == 2:
        scale = scales[0] * scales[1]
        bias.copy_((bias / scale).round() * scale)
