"""Quantizers put into a model in place: its parameters keep their names, their objects and so their optimizer.

A quantized layer is the same object with another class, as torch's own parametrizations make it; beside its weight it
has children ``input_quantizer``, ``weight_quantizer`` and ``output_quantizer`` (an Identity where nothing is rounded).
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from ovit_deploy.errors import ModelError
from ovit_deploy.quantization.fake_quant import FakeQuantize
from ovit_deploy.recipe.names import nearest
from ovit_deploy.recipe.quantization import Quantization, Scheme, TensorScheme


class QuantizedLinear(nn.Linear):
    """A Linear that rounds its input and its weight."""

    input_quantizer: nn.Module
    weight_quantizer: nn.Module
    output_quantizer: nn.Module

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """The layer's output of rounded factors."""
        product = F.linear(self.input_quantizer(input), self.weight_quantizer(self.weight), self.bias)
        return self.output_quantizer(product)


class QuantizedConv2d(nn.Conv2d):
    """A Conv2d that rounds its input and its weight."""

    input_quantizer: nn.Module
    weight_quantizer: nn.Module
    output_quantizer: nn.Module

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """The layer's output of rounded factors."""
        product = self._conv_forward(self.input_quantizer(input), self.weight_quantizer(self.weight), self.bias)
        return self.output_quantizer(product)


class QuantizedAttention(Attention):
    """timm's attention without masks, whose two products take rounded factors.

    softmax(Q K^T / sqrt(d)) V, with Q / sqrt(d), K^T, the softmax and V rounded, one scale each.
    """

    query_quantizer: nn.Module
    key_quantizer: nn.Module
    softmax_quantizer: nn.Module
    value_quantizer: nn.Module

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attention over tokens ``x`` [B, N, C]."""
        assert attn_mask is None and not is_causal, "timm's VisionTransformer passes no mask"
        B, N, _ = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q = self.query_quantizer(self.q_norm(q) * self.scale)
        k = self.key_quantizer(self.k_norm(k).transpose(-2, -1))
        attention = self.softmax_quantizer(self.attn_drop((q @ k).softmax(dim=-1)))
        x = (attention @ self.value_quantizer(v)).transpose(1, 2).reshape(B, N, -1)
        return self.proj_drop(self.proj(self.norm(x)))


_LAYERS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: QuantizedLinear, nn.Conv2d: QuantizedConv2d}
_FACTORS = ("query", "key", "softmax", "value")


def is_quantized(model: nn.Module) -> bool:
    """Whether quantizers are in the model."""
    return any(isinstance(module, FakeQuantize) for module in model.modules())


def insert(model: nn.Module, quantization: Quantization) -> list[str]:
    """Quantize ``model`` in place.

    Returns:
        The names of the quantized modules.

    Raises:
        ModelError: a name or class that the model has not, nothing to quantize, or quantized already.
    """
    if is_quantized(model):
        raise ModelError("the model is quantized already", "leave out the QuantizationModifier, or start from float")
    if quantization.strict:
        _check_names(model, quantization)
    chosen = [(name, module) for name, module in model.named_modules() if _is_chosen(name, module, quantization)]
    if not chosen:
        raise ModelError("the recipe quantizes no layer of the model", "mend submodules and ignore")
    with next(model.parameters()).device:  # where new modules are made
        for name, module in chosen:
            scheme = _scheme(name, module, quantization)
            if type(module) is Attention:
                _quantize_products(module, scheme.input_activations)
            else:
                _quantize_layer(module, scheme)
    return [name for name, _ in chosen]


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Observe activations on ``batches``; the model is in evaluation mode meanwhile, only its observers are not."""
    training = model.training
    model.eval()
    for quantizer in _quantizers(model):
        quantizer.train()
    device = next(model.parameters()).device
    for images, _ in batches:
        model(images.to(device))
    model.train(training)


def freeze_observers(model: nn.Module) -> None:
    """Ranges stay as they are from here on."""
    for quantizer in _quantizers(model):
        quantizer.observing = False


def freeze_batch_norm(model: nn.Module) -> None:
    """Batch norms use and keep their running statistics from here on, in training mode, too."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(_evaluate)


def _evaluate(module: nn.Module, _: tuple[Tensor, ...]) -> None:
    module.eval()


def _quantizers(model: nn.Module) -> Iterator[FakeQuantize]:
    return (module for module in model.modules() if isinstance(module, FakeQuantize))


def _quantize_layer(module: nn.Module, scheme: Scheme) -> None:
    module.__class__ = _LAYERS[type(module)]
    module.input_quantizer = _of_activation(scheme.input_activations)
    module.output_quantizer = _of_activation(scheme.output_activations)
    channels = len(module.get_parameter("weight"))
    module.weight_quantizer = (
        nn.Identity()
        if scheme.weights is None
        else FakeQuantize(
            scheme.weights, num_channels=channels if scheme.weights.strategy == "channel" else None, of_weight=True
        )
    )


def _quantize_products(module: nn.Module, scheme: TensorScheme | None) -> None:
    if getattr(module, "gate", None) is not None:
        raise ModelError("gated attention cannot be quantized", "leave out attention_products")
    module.__class__ = QuantizedAttention
    for factor in _FACTORS:
        setattr(module, f"{factor}_quantizer", _of_activation(scheme))


def _of_activation(scheme: TensorScheme | None) -> nn.Module:
    return nn.Identity() if scheme is None else FakeQuantize(scheme)


def _is_chosen(name: str, module: nn.Module, quantization: Quantization) -> bool:
    kind = type(module)
    if kind not in _LAYERS and not (kind is Attention and quantization.attention_products):
        return False
    inside = quantization.submodules is None or any(_within(name, outer) for outer in quantization.submodules)
    ignored = any(_within(name, outer) or kind.__name__ == outer for outer in quantization.ignore)
    return inside and not ignored


def _scheme(name: str, module: nn.Module, quantization: Quantization) -> Scheme:
    """The override of the nearest module around, else of the class, else the scheme of all."""
    overrides = quantization.scheme_overrides
    around = [outer for outer in overrides if _within(name, outer)]
    if around:
        return overrides[max(around, key=len)]
    return overrides.get(type(module).__name__, quantization.scheme)


def _within(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f"{outer}.")


def _check_names(model: nn.Module, quantization: Quantization) -> None:
    names = [name for name, _ in model.named_modules() if name]
    kinds = sorted({type(module).__name__ for module in model.modules()})
    for key in ("submodules", "ignore", "scheme_overrides"):
        known = names if key == "submodules" else [*names, *kinds]
        unknown = [name for name in getattr(quantization, key) or () if name not in known]
        if unknown:
            near = nearest(unknown[0], kinds if key != "submodules" and "." not in unknown[0] else names[:200])
            raise ModelError(
                f"QuantizationModifier.{key}: the model has no {unknown[0]!r}{near}",
                "name modules or classes of this model, or say strict: false",
            )
    unquantizable = [key for key in quantization.scheme_overrides if key in kinds and key not in _QUANTIZABLE]
    if unquantizable:
        raise ModelError(
            f"QuantizationModifier.scheme_overrides: {unquantizable[0]} stays in floating point",
            f"override {', '.join(_QUANTIZABLE)}, or modules by name",
        )


_QUANTIZABLE = tuple(kind.__name__ for kind in (*_LAYERS, Attention))
