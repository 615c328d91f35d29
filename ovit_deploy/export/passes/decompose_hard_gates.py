"""HardSigmoid, HardSwish -> Add, Clip, Mul."""

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from ovit_deploy.export.passes.graph import array, initializer, nodes, number, operand, replace

SLOPE, OFFSET = 0.2, 0.5  # the operator's defaults; PyTorch's are 1/6 and 1/2


def decompose_hard_gates(model: ir.Model) -> ir.Model:
    """The straight-line sigmoid of MobileNetV3 and what is multiplied by it, in elementary operators.

        HardSigmoid(x) = clip(x + offset / slope, 0, 1 / slope) * slope
        HardSwish(x) = (x * clip(x + 3, 0, 6)) * 1/6

    DeepSparse 1.8 fuses neither operator: HardSigmoid leaves parts of the graph to its slow path, which has no products
    of integers; on HardSwish beside such products it loses constants of the graph, or dies. What is added to a
    convolution without a bias it takes for that bias, and refuses one number for all channels: such a convolution gets
    a bias of zeros.

    Ensures:
        no HardSigmoid, no HardSwish.
    """
    for operator, spelt in (("HardSigmoid", _sigmoid), ("HardSwish", _swish)):
        for node in nodes(model, operator):
            before = operand(node, 0).producer()
            if before is not None and before.op_type == "Conv" and len(before.inputs) == 2:
                replace(before, _with_bias)
            replace(node, spelt)
    return model


def _sigmoid(tape: Tape, node: ir.Node) -> ir.Value:
    slope, offset = _attribute(node, "alpha", SLOPE), _attribute(node, "beta", OFFSET)
    return tape.op("Mul", [_clipped(tape, node, offset / slope, 1 / slope), _number(node, slope)])


def _swish(tape: Tape, node: ir.Node) -> ir.Value:
    product = tape.op("Mul", [operand(node, 0), _clipped(tape, node, 3.0, 6.0)])
    return tape.op("Mul", [product, _number(node, 1 / 6)])


def _clipped(tape: Tape, node: ir.Node, offset: float, most: float) -> ir.Value:
    """clip(x + offset, 0, most)."""
    moved = tape.op("Add", [operand(node, 0), _number(node, offset)])
    return tape.op("Clip", [moved, _number(node, 0.0), _number(node, most)])


def _with_bias(tape: Tape, convolution: ir.Node) -> ir.Value:
    images, weight, graph = operand(convolution, 0), operand(convolution, 1), convolution.graph
    assert isinstance(graph, ir.Graph)
    zeros = initializer(graph, f"{weight.name}_bias", np.zeros(len(array(weight)), np.float32))
    return tape.op("Conv", [images, weight, zeros], dict(convolution.attributes))


def _attribute(node: ir.Node, name: str, default: float) -> float:
    return node.attributes[name].as_float() if name in node.attributes else default


def _number(node: ir.Node, value: float) -> ir.Value:
    """A constant, rounded to float32 first, so that equal ones have one name."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    return number(graph, float(np.float32(value)))
