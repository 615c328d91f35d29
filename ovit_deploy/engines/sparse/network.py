"""An isotropic vision transformer as arrays: what the engine runs, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Pooling = Literal["token", "average"]


@dataclass(frozen=True)
class Range:
    """Per-tensor uint8 quantization of an activation: q = clip(round(x / scale) + zero_point, 0, 255), ties to even.

    Args:
        scale: of one step, > 0.
        zero_point: the integer that stands for 0, in [0, 255].
    """

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Linear:
    """y = x W^T + b, in float32 or in integers.

    In integers y = (q(x) - zero_point) Q^T * input.scale * scale + b: the sum is exact (int32), the rest float32.

    Args:
        weight: [out, in], float32, or int8 when ``input`` is given.
        bias: [out] float32.
        scale: [out] float32, of the int8 weights' steps (zero point 0); None for float32 weights.
        input: how the input is quantized; None for float32 weights.
    """

    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray | None = None
    input: Range | None = None


@dataclass(frozen=True)
class LayerNorm:
    """Over the features of a token: weight * (x - mean) / sqrt(variance + epsilon) + bias, both [features]."""

    weight: np.ndarray
    bias: np.ndarray
    epsilon: float


@dataclass(frozen=True)
class Attention:
    """proj(softmax(scale * q k^T) v) of heads of equal width, q, k and v from one product.

    Args:
        qkv: [3 * heads * width, in], rows in the order q, k, v, then heads, then their features.
        proj: [features, heads * width]; a layer scale is already folded into it.
        heads: their number.
        scale: of the products q k^T.
        query, key, probabilities, value: how the factors of the two products are quantized; None for float32.
    """

    qkv: Linear
    proj: Linear
    heads: int
    scale: float
    query: Range | None = None
    key: Range | None = None
    probabilities: Range | None = None
    value: Range | None = None


@dataclass(frozen=True)
class Mlp:
    """fc2(activation(fc1(x))); a layer scale is already folded into fc2."""

    fc1: Linear
    fc2: Linear
    activation: Activation = "gelu"


@dataclass(frozen=True)
class Block:
    """x += attention(norm1(x)); x += mlp(norm2(x)). Widths may differ from block to block."""

    norm1: LayerNorm
    attention: Attention
    norm2: LayerNorm
    mlp: Mlp


@dataclass(frozen=True)
class Network:
    """Images [batch, channels, height, width] to logits [batch, classes].

    The patches, in row-major order, go through ``embedding`` (a convolution without overlap: its weight is
    [features, channels * patch * patch]) and stand behind the prefix tokens (class token, registers, which have their
    positions added already); ``position`` is added to the patches' tokens. After the blocks: ``norm``, pooling, head.

    Args:
        channels, height, width: of an image.
        patch: height and width of a patch, in pixels.
        embedding: of the patches.
        prefix: [prefix tokens, features].
        position: [patches, features].
        norm_pre: before the first block, if any.
        blocks: in order.
        norm: after the last block, if any.
        pooling: "token" takes the first token, "average" the mean of those behind the prefix.
        head_norm: after pooling, if any.
        heads: one, or a head for each of the first tokens whose logits are averaged (distilled models).
    """

    channels: int
    height: int
    width: int
    patch: int
    embedding: Linear
    prefix: np.ndarray
    position: np.ndarray
    norm_pre: LayerNorm | None
    blocks: tuple[Block, ...]
    norm: LayerNorm | None
    pooling: Pooling
    head_norm: LayerNorm | None
    heads: tuple[Linear, ...]

    @property
    def features(self) -> int:
        """Width of the residual stream."""
        return self.embedding.weight.shape[0]

    @property
    def tokens(self) -> int:
        """Prefix tokens and patches."""
        return len(self.prefix) + len(self.position)
