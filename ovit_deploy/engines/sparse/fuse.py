"""Elementary operators back to the large ones: LayerNormalization and Gelu as in ``export/deepsparse.yaml``."""

from __future__ import annotations

import math

import numpy as np
from onnx import NodeProto, helper

from ovit_deploy.engines.sparse.graph import Graph


def fuse(graph: Graph) -> None:
    """Replace what is one of the two forms; what is not stays, for the reader to refuse."""
    for node in list(graph.makers.values()):
        if node.op_type == "Sub":
            _layer_norm(graph, node)
        elif node.op_type == "Erf":
            _gelu(graph, node)


def _follow(graph: Graph, node: NodeProto, *operators: str) -> list[NodeProto]:
    """The chain of operators behind ``node``, each the one reader of that kind; as far as it goes."""
    chain = [node]
    for operator in operators:
        following = graph.next(chain[-1].output[0], operator)
        if following is None:
            break
        chain.append(following)
    return chain


def _number(graph: Graph, node: NodeProto, value: str) -> float:
    """The single constant that a node joins ``value`` with; not a number where it is no such thing."""
    others = [name for name in node.input if name != value]
    found = graph.constants.get(others[0]) if len(others) == 1 else None
    return float(found.reshape(())) if isinstance(found, np.ndarray) and found.size == 1 else math.nan


def _vector(graph: Graph, node: NodeProto, value: str) -> str | None:
    others = [name for name in node.input if name != value and name in graph.constants]
    return others[0] if len(others) == 1 else None


def _layer_norm(graph: Graph, centred: NodeProto) -> None:
    """(x - mean) / sqrt(mean((x - mean)^2) + epsilon) * weight + bias."""
    x, mean = centred.input[0], graph.makers.get(centred.input[1])
    variance = _follow(graph, centred, "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add")
    if mean is None or mean.op_type != "ReduceMean" or mean.input[0] != x or len(variance) != 8:
        return
    _, power, _, plus, root, ratio, scaled, shifted = variance
    weight, bias = _vector(graph, scaled, ratio.output[0]), _vector(graph, shifted, scaled.output[0])
    epsilon = _number(graph, plus, plus.input[0])
    fits = list(ratio.input) == [centred.output[0], root.output[0]] and _number(graph, power, centred.output[0]) == 2
    if not fits or weight is None or bias is None or math.isnan(epsilon):
        return
    made = helper.make_node(
        "LayerNormalization", [x, weight, bias], [shifted.output[0]], name=centred.name, epsilon=epsilon, axis=-1
    )
    graph.replace([mean, *variance], made)


def _gelu(graph: Graph, erf: NodeProto) -> None:
    """x (1 + erf(x / sqrt 2)) / 2, multiplied in either order."""
    scaled = graph.makers.get(erf.input[0])
    chain = _follow(graph, erf, "Add", "Mul", "Mul")
    if scaled is None or scaled.op_type not in ("Div", "Mul") or len(chain) != 4:
        return
    x = next((name for name in scaled.input if name not in graph.constants), "")
    factor, (_, plus, first, second) = _number(graph, scaled, x), chain
    by_x, by_half = (first, second) if x in first.input else (second, first)
    root = math.sqrt(2) if scaled.op_type == "Div" else math.sqrt(0.5)
    fits = x in by_x.input and math.isclose(factor, root, rel_tol=1e-5) and _number(graph, plus, erf.output[0]) == 1
    half = _number(graph, by_half, first.output[0] if by_half is second else plus.output[0])
    if fits and half == 0.5:
        graph.replace([scaled, *chain], helper.make_node("Gelu", [x], [second.output[0]], name=erf.name))
