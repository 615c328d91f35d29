"""LayerNormalization -> ReduceMean, Sub, Pow, ReduceMean, Add, Sqrt, Div, Mul, Add."""

import onnx_ir as ir
from onnx_ir.tape import Tape

from ovit_deploy.export.passes.graph import nodes, number, operand, replace


def decompose_layer_norm(model: ir.Model) -> ir.Model:
    """LayerNorm in elementary operators, (x - mean) / sqrt(var + eps) * weight + bias.

    DeepSparse 1.8 fuses this form; its LayerNormalization operator is a fallback that splits the graph. ONNX
    Runtime and OpenVINO recognise the form and fuse it again.

    Requires:
        the axis is counted from the end, as PyTorch's exporter writes it.
    Ensures:
        no LayerNormalization.
    """
    for node in nodes(model, "LayerNormalization"):
        replace(node, _elementary)
    return model


def counts_from_the_end(node: ir.Node) -> bool:
    """True if the first normalized axis is negative (the default of the operator is)."""
    return _axis(node) < 0


def _axis(node: ir.Node) -> int:
    return node.attributes["axis"].as_int() if "axis" in node.attributes else -1


def _elementary(tape: Tape, node: ir.Node) -> ir.Value:
    graph, x = node.graph, operand(node, 0)
    assert isinstance(graph, ir.Graph)
    axes, two = number(graph, list(range(_axis(node), 0))), number(graph, 2.0)
    epsilon = number(graph, node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5)

    centred = tape.op("Sub", [x, tape.op("ReduceMean", [x, axes], {"keepdims": 1})])
    variance = tape.op("ReduceMean", [tape.op("Pow", [centred, two]), axes], {"keepdims": 1})
    deviation = tape.op("Sqrt", [tape.op("Add", [variance, epsilon])])
    scaled = tape.op("Mul", [tape.op("Div", [centred, deviation]), operand(node, 1)])
    return tape.op("Add", [scaled, node.inputs[2]]) if len(node.inputs) > 2 else scaled
