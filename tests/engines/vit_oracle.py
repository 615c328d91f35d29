"""Networks of any shape, and what they are by definition, in float64."""

import math

import numpy as np

from ovit_deploy.engines.sparse.network import Attention, Block, LayerNorm, Linear, Mlp, Network, Range


def quantized(x: np.ndarray, kind: Range | None) -> np.ndarray:
    """QuantizeLinear and DequantizeLinear; the quotient in float32, as the operator has it."""
    if kind is None:
        return x
    steps = np.rint(x.astype(np.float32) / np.float32(kind.scale)).astype(np.float64)
    return (np.clip(steps + kind.zero_point, 0, 255) - kind.zero_point) * np.float64(np.float32(kind.scale))


def product(x: np.ndarray, linear: Linear) -> np.ndarray:
    weight = linear.weight.astype(np.float64)
    if linear.scale is not None:
        weight *= linear.scale[:, None]
    return quantized(x, linear.input) @ weight.T + linear.bias


def normed(x: np.ndarray, norm: LayerNorm | None) -> np.ndarray:
    if norm is None:
        return x
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + norm.epsilon) * norm.weight + norm.bias


def activated(x: np.ndarray, activation: str) -> np.ndarray:
    match activation:
        case "gelu":
            return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
        case "gelu_tanh":
            return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
        case "relu":
            return np.maximum(x, 0)
        case _:
            return x / (1 + np.exp(-x))


def attended(x: np.ndarray, attention: Attention) -> np.ndarray:
    batch, tokens, _ = x.shape
    qkv = product(x, attention.qkv).reshape(batch, tokens, 3, attention.heads, -1).transpose(2, 0, 3, 1, 4)
    query, key = quantized(qkv[0] * attention.scale, attention.query), quantized(qkv[1], attention.key)
    scores = query @ key.swapaxes(-1, -2)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares = quantized(shares / shares.sum(-1, keepdims=True), attention.probabilities)
    mixed = shares @ quantized(qkv[2], attention.value)
    return product(mixed.swapaxes(1, 2).reshape(batch, tokens, -1), attention.proj)


def logits(network: Network, images: np.ndarray) -> np.ndarray:
    """By the docstring of `Network`."""
    batch, channels, side = len(images), network.channels, network.patch
    patches = images.astype(np.float64).reshape(batch, channels, network.height // side, side, -1, side)
    patches = patches.transpose(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * side * side)
    x = product(patches, network.embedding) + network.position
    x = np.concatenate([np.broadcast_to(network.prefix, (batch, *network.prefix.shape)), x], axis=1)
    x = normed(x, network.norm_pre)
    for block in network.blocks:
        x = x + attended(normed(x, block.norm1), block.attention)
        x = x + product(activated(product(normed(x, block.norm2), block.mlp.fc1), block.mlp.activation), block.mlp.fc2)
    x = normed(x, network.norm)
    if network.pooling == "average":
        pooled = [x[:, len(network.prefix) :].mean(1)] * len(network.heads)
    else:
        pooled = [x[:, number] for number in range(len(network.heads))]
    return np.mean(
        [product(normed(p, network.head_norm), h) for p, h in zip(pooled, network.heads, strict=True)], axis=0
    )


def random_linear(draw: np.random.Generator, out: int, size: int, density: float, *, integers: bool) -> Linear:
    """Of that share of non-zeros; the first row has none."""
    kept = draw.random((out, size)) < density
    kept[0] &= density == 1
    bias = draw.standard_normal(out).astype(np.float32)
    if not integers:
        weight = draw.standard_normal((out, size)) / math.sqrt(max(1, size * density)) * kept
        return Linear(weight.astype(np.float32), bias)
    weight = (draw.integers(-127, 128, (out, size)) * kept).astype(np.int8)
    scale = draw.uniform(0.5, 1.5, out) / (73 * math.sqrt(max(1, size * density)))
    return Linear(weight, bias, scale.astype(np.float32), Range(0.03, int(draw.integers(0, 256))))


def random_norm(draw: np.random.Generator, features: int) -> LayerNorm:
    weight, bias = draw.uniform(0.5, 1.5, features), draw.standard_normal(features)
    return LayerNorm(weight.astype(np.float32), bias.astype(np.float32), 1e-6)


def random_network(
    seed: int,
    *,
    grid: tuple[int, int] = (2, 3),
    patch: int = 2,
    channels: int = 3,
    heads: int = 2,
    width: int = 5,
    hidden: int = 7,
    depth: int = 2,
    prefix: int = 1,
    classes: int = 4,
    density: float = 0.3,
    integers: bool = False,
    activation: str = "gelu",
    average: bool = False,
    ends: int = 1,
) -> Network:
    """Any of them."""
    draw = np.random.default_rng(seed)
    features = heads * width

    def linear(out: int, size: int) -> Linear:
        return random_linear(draw, out, size, density, integers=integers)

    def block() -> Block:
        attention = Attention(linear(3 * features, features), linear(features, features), heads, 1 / math.sqrt(width))
        mlp = Mlp(linear(hidden, features), linear(features, hidden), activation)
        return Block(random_norm(draw, features), attention, random_norm(draw, features), mlp)

    height, across = grid
    return Network(
        channels,
        height * patch,
        across * patch,
        patch,
        linear(features, channels * patch * patch),
        draw.standard_normal((prefix, features)).astype(np.float32),
        draw.standard_normal((height * across, features)).astype(np.float32),
        random_norm(draw, features) if seed % 2 else None,
        tuple(block() for _ in range(depth)),
        random_norm(draw, features),
        "average" if average else "token",
        random_norm(draw, features) if average else None,
        tuple(linear(classes, features) for _ in range(ends)),
    )
