"""From an exported graph to a `Network`: the graph is walked along from the images to the logits.

At each place there is one operator that can come next (or one of two); anything else is refused by its name. The graphs
are those of ``deepsparse``, ``onnxruntime``, ``openvino`` and ``onnxruntime_int8`` under ``export/``: quantized factors
as QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import NodeProto

from ovit_deploy.engines.sparse.fuse import fuse
from ovit_deploy.engines.sparse.graph import SHAPES, Graph, attribute, refusal
from ovit_deploy.engines.sparse.network import Activation, Attention, Block, LayerNorm, Linear, Mlp, Network, Pooling
from ovit_deploy.errors import EngineError

_ACTIVATIONS: dict[str, Activation] = {"Relu": "relu"}


def recognize(path: str) -> Network:
    """The network in a file.

    Raises:
        EngineError: the file cannot be read, or is no isotropic vision transformer; names the first operator that does
            not fit.
    """
    graph = Graph(path)
    try:
        fuse(graph)
        return _network(graph)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:  # shapes that lie
        raise EngineError(f"{path}: sizes that do not go together ({error})", "export it again") from error


def _network(graph: Graph) -> Network:
    channels, height, width = graph.image_shape()
    embedding, patch, value = _embedding(graph)
    num_patches = (height // patch) * (width // patch)
    prefix, position, value = _tokens(graph, value, num_patches, len(embedding.weight))
    norm_pre = None
    node = graph.expect(value, "LayerNormalization")
    if graph.next(node.output[0], "LayerNormalization") is not None:
        norm_pre, value = _norm(graph, node)
    blocks = []
    while graph.next(value, "LayerNormalization") is not None and graph.next(value, "Add") is not None:
        block, value = _block(graph, value, num_patches + len(prefix))
        blocks.append(block)
    return Network(
        channels,
        height,
        width,
        patch,
        embedding,
        prefix,
        position,
        norm_pre,
        tuple(blocks),
        **_end(graph, value, len(prefix)),
    )


def _embedding(graph: Graph) -> tuple[Linear, int, str]:
    """The convolution over the patches as a product, the size of a patch, and the tokens behind it."""
    value, kind = graph.quantized(graph.input.name)
    node = graph.expect(value, "Conv")
    weight, scale = _weight(graph, node.input[1], node)
    features, _, patch, across = weight.shape
    pads = attribute(node, "pads", [0] * 4)
    whole = list(attribute(node, "strides", [1, 1])) == [patch, across] and not any(pads)
    if patch != across or not whole or attribute(node, "group", 1) != 1:
        raise refusal(node, value, "a convolution of square patches without overlap")
    bias = graph.constant(node.input[2], node) if len(node.input) > 2 else np.zeros(features, np.float32)
    value = graph.expect(graph.expect(node.output[0], "Reshape").output[0], "Transpose").output[0]
    return Linear(weight.reshape(features, -1), bias, scale, kind), patch, value


def _tokens(graph: Graph, value: str, num_patches: int, features: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Prefix tokens with their positions, positions of the patches, and the tokens behind both."""
    prefix = np.zeros((0, features), np.float32)
    position = np.zeros((num_patches, features), np.float32)
    while (node := graph.next(value, "Add", "Concat")) is not None:
        if node.op_type == "Concat":
            parts = [_token(graph, name, node) for name in node.input if name != value]
            if node.input[-1] != value or attribute(node, "axis") != 1:
                raise refusal(node, value, "tokens before the patches")
            prefix = np.concatenate([*parts, prefix])
        elif any(name in graph.constants for name in node.input):
            added = graph.constant_of(node, value).reshape(-1, features)
            prefix, position = prefix + added[: len(prefix)], position + added[len(prefix) :]
        else:
            break
        value = node.output[0]
    return prefix, position, value


def _token(graph: Graph, name: str, reader: NodeProto) -> np.ndarray:
    """A learned token, repeated for every image of a batch."""
    maker = graph.makers.get(name)
    source = maker.input[0] if maker is not None and maker.op_type == "Expand" else name
    token = graph.constant(source, reader)
    return token.reshape(-1, token.shape[-1])


def _norm(graph: Graph, node: NodeProto) -> tuple[LayerNorm, str]:
    if attribute(node, "axis", -1) not in (-1, 2):
        raise refusal(node, node.input[0], "LayerNormalization over features")
    weight = graph.constant(node.input[1], node)
    bias = graph.constant(node.input[2], node) if len(node.input) > 2 else np.zeros_like(weight)
    return LayerNorm(weight, bias, float(attribute(node, "epsilon", 1e-5))), node.output[0]


def _weight(graph: Graph, name: str, reader: NodeProto) -> tuple[np.ndarray, np.ndarray | None]:
    """A weight, and the steps of its integers by output; no steps where it is float."""
    maker = graph.makers.get(name)
    if maker is None or maker.op_type != "DequantizeLinear":
        return graph.constant(name, reader).astype(np.float32, copy=False), None
    weight, scale = graph.constant(maker.input[0], maker), graph.constant(maker.input[1], maker)
    zero_point = graph.constant(maker.input[2], maker) if len(maker.input) > 2 else np.zeros(1)
    if weight.dtype != np.int8 or zero_point.any():
        raise refusal(maker, name, "int8 weights whose zero point is 0")
    axis = 1 if reader.op_type == "MatMul" else 0
    if scale.size > 1 and attribute(maker, "axis", 1) != axis:
        raise refusal(maker, name, "a scale for every output")
    return weight, np.broadcast_to(scale.astype(np.float32), (weight.shape[axis],))


def _linear(graph: Graph, value: str) -> tuple[Linear, str]:
    """MatMul and its bias, or Gemm."""
    value, kind = graph.quantized(value)
    node = graph.expect(value, "MatMul", "Gemm")
    weight, scale = _weight(graph, node.input[1], node)
    if (scale is None) != (kind is None):
        raise refusal(node, value, "a product of two factors that are both quantized, or neither")
    if node.op_type == "MatMul" or not attribute(node, "transB", 0):
        weight = weight.T
    weight, value = np.ascontiguousarray(weight), node.output[0]
    bias = np.zeros(len(weight), np.float32)
    if node.op_type == "Gemm":
        bias = graph.constant(node.input[2], node) if len(node.input) > 2 else bias
    elif (added := graph.next(value, "Add")) is not None and any(name in graph.constants for name in added.input):
        bias, value = graph.constant_of(added, value), added.output[0]
    return Linear(weight, bias.astype(np.float32), scale, kind), value


def _scaled(graph: Graph, linear: Linear, value: str) -> tuple[Linear, str]:
    """A product with the layer scale that follows it, if one does, folded in."""
    node = graph.next(value, "Mul")
    if node is None:
        return linear, value
    gamma = graph.constant_of(node, value).reshape(-1).astype(np.float32)
    bias = linear.bias * gamma
    if linear.scale is not None:
        return replace(linear, scale=linear.scale * gamma, bias=bias), node.output[0]
    return replace(linear, weight=linear.weight * gamma[:, None], bias=bias), node.output[0]


def _block(graph: Graph, value: str, num_tokens: int) -> tuple[Block, str]:
    norm1, inner = _norm(graph, graph.expect(value, "LayerNormalization"))
    attention, inner = _attention(graph, inner, num_tokens)
    value = _residual(graph, value, inner)
    norm2, inner = _norm(graph, graph.expect(value, "LayerNormalization"))
    fc1, inner = _linear(graph, inner)
    activation, inner = _activation(graph, inner)
    fc2, inner = _scaled(graph, *_linear(graph, inner))
    return Block(norm1, attention, norm2, Mlp(fc1, fc2, activation)), _residual(graph, value, inner)


def _residual(graph: Graph, value: str, inner: str) -> str:
    node = graph.expect(inner, "Add")
    if value not in node.input:
        raise refusal(node, inner, "the residual Add")
    return node.output[0]


def _activation(graph: Graph, value: str) -> tuple[Activation, str]:
    node = graph.expect(value, "Gelu", *_ACTIVATIONS)
    if node.op_type != "Gelu":
        return _ACTIVATIONS[node.op_type], node.output[0]
    return ("gelu_tanh" if attribute(node, "approximate", b"none") == b"tanh" else "gelu"), node.output[0]


@dataclass(frozen=True)
class _Heads:
    """Query, key and value of all heads, as values of the graph, and the heads' number and width."""

    query: str
    key: str
    value: str
    number: int
    width: int


def _attention(graph: Graph, value: str, num_tokens: int) -> tuple[Attention, str]:
    qkv, value = _linear(graph, value)
    heads = _heads(graph, value, num_tokens)
    scale, query = 1.0, heads.query
    if (node := graph.next(query, "Mul")) is not None:
        scale, query = float(graph.constant_of(node, query).reshape(())), node.output[0]
    query, query_range = graph.quantized(query)
    transposed = graph.expect(heads.key, "Transpose")
    key, key_range = graph.quantized(transposed.output[0])
    scores = graph.expect(query, "MatMul")
    if list(scores.input) != [query, key] or list(attribute(transposed, "perm")) != [0, 1, 3, 2]:
        raise refusal(scores, query, "the product of queries and keys")
    softmax = graph.expect(scores.output[0], "Softmax")
    if attribute(softmax, "axis", -1) not in (-1, 3):
        raise refusal(softmax, scores.output[0], "Softmax over keys")
    shares, shares_range = graph.quantized(softmax.output[0])
    values, values_range = graph.quantized(heads.value)
    mixed = graph.expect(shares, "MatMul")
    if list(mixed.input) != [shares, values]:
        raise refusal(mixed, shares, "the product with the values")
    back = graph.expect(mixed.output[0], "Transpose")
    value = graph.expect(back.output[0], "Reshape").output[0]
    proj, value = _scaled(graph, *_linear(graph, value))
    found = Attention(qkv, proj, heads.number, scale, query_range, key_range, shares_range, values_range)
    return found, value


def _heads(graph: Graph, value: str, num_tokens: int) -> _Heads:
    """Reshape to [batch, tokens, 3, heads, width], Transpose, and three slices."""
    reshape = graph.expect(value, "Reshape")
    shape = [int(size) for size in graph.constant(reshape.input[1], reshape)]
    if len(shape) != 5 or shape[2] != 3 or shape[1] not in (num_tokens, 0, -1):
        raise refusal(reshape, value, "a Reshape to queries, keys and values of all heads")
    transpose = graph.expect(reshape.output[0], "Transpose")
    if list(attribute(transpose, "perm")) != [2, 0, 3, 1, 4]:
        raise refusal(transpose, reshape.output[0], "a Transpose that brings queries, keys and values to the front")
    parts = {}
    for node in graph.readers[transpose.output[0]]:
        if node.op_type != "Slice":
            raise refusal(node, transpose.output[0], "Slice")
        start, stop, axis = (int(graph.constant(name, node).reshape(-1)[0]) for name in node.input[1:4])
        if (axis, stop) != (0, start + 1):
            raise refusal(node, transpose.output[0], "a Slice of one of three")
        parts[start] = graph.expect(node.output[0], "Squeeze").output[0]
    if sorted(parts) != [0, 1, 2]:
        raise refusal(transpose, value, "queries, keys and values")
    return _Heads(parts[0], parts[1], parts[2], shape[3], shape[4])


def _end(graph: Graph, value: str, num_prefix: int) -> dict[str, Any]:
    """What follows the blocks: norm, pooling, norm, head."""
    norm = head_norm = None
    if (node := graph.next(value, "LayerNormalization")) is not None:
        norm, value = _norm(graph, node)
    pooled, pooling = _pooled(graph, value, num_prefix)
    if (node := graph.next(pooled[0], "LayerNormalization")) is not None and len(pooled) == 1:
        head_norm, after = _norm(graph, node)
        pooled = [after]
    found = [_linear(graph, one) for one in pooled]
    last = found[0][1]
    if len(found) > 1:
        total = graph.expect(last, "Add")
        mean = graph.expect(total.output[0], "Div")
        if len(found) != 2 or float(graph.constant_of(mean, total.output[0]).reshape(())) != 2:
            raise refusal(mean, total.output[0], "the mean of two heads")
        last = mean.output[0]
    if last != graph.output:
        raise refusal(next(iter(graph.readers[last]), None), last, "the output")
    heads = tuple(linear for linear, _ in found)
    return {"norm": norm, "pooling": pooling, "head_norm": head_norm, "heads": heads}


def _pooled(graph: Graph, value: str, num_prefix: int) -> tuple[list[str], Pooling]:
    """The pooled tokens, in order, and how they come about."""
    readers = [node for node in graph.readers[value] if node.op_type not in SHAPES]
    gathers = [node for node in readers if node.op_type == "Gather"]
    if gathers and len(gathers) == len(readers):
        order = {int(graph.constant(node.input[1], node).reshape(())): node.output[0] for node in gathers}
        if sorted(order) != list(range(len(gathers))) or any(attribute(node, "axis", 0) != 1 for node in gathers):
            raise refusal(gathers[0], value, "a Gather of the first tokens")
        return [order[index] for index in sorted(order)], "token"
    if (cut := graph.next(value, "Slice")) is not None:
        start, stop, axis = (int(graph.constant(name, cut).reshape(-1)[0]) for name in cut.input[1:4])
        if (start, axis) != (num_prefix, 1) or stop < 2**31 - 1:
            raise refusal(cut, value, "a Slice of all patches")
        value = cut.output[0]
    elif num_prefix:
        raise refusal(readers[0] if readers else None, value, "a Gather of tokens or a Slice of all patches")
    mean = graph.expect(value, "ReduceMean")
    axes = graph.constant(mean.input[1], mean).reshape(-1) if len(mean.input) > 1 else attribute(mean, "axes")
    if list(axes) != [1] or attribute(mean, "keepdims", 1):
        raise refusal(mean, value, "ReduceMean over tokens")
    return [mean.output[0]], "average"
