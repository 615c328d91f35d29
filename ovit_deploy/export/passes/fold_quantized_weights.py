"""QuantizeLinear(weight) -> the integers themselves."""

import numpy as np
import onnx_ir as ir

from ovit_deploy.export.passes.graph import array, constant, nodes, operand


def fold_quantized_weights(model: ir.Model) -> ir.Model:
    """Weights stored as integers, as MatMul reads them (inputs x outputs), under the name they have in PyTorch.

    What is left of a weight's quantization is one DequantizeLinear. A Transpose after it is folded into the integers
    and into the axis of its scales. Zeros become the zero point, which for weights is 0.

    Requires:
        a quantized weight has no other use.
    Ensures:
        no QuantizeLinear of a weight, no Transpose of a dequantized one.
    """
    for node in nodes(model, "QuantizeLinear"):
        if quantizes_weight(node):
            _fold(model.graph, node)
    return model


def is_only_use(node: ir.Node) -> bool:
    """True unless ``node`` quantizes a weight that something else reads, too."""
    return not quantizes_weight(node) or len(list(operand(node, 0).consumers())) == 1


def quantizes_weight(node: ir.Node) -> bool:
    """True if ``node`` quantizes a constant, and not one that layers read as if it came from an image (coordinates)."""
    if constant(operand(node, 0)) is None:
        return False
    values = [node.outputs[0]]
    while values:
        value = values.pop()
        for reader in value.consumers():
            if reader.op_type in ("DequantizeLinear", "Transpose"):
                values.append(reader.outputs[0])
            elif reader.inputs[0] is not value:
                return True
    return False


def is_not_dequantized_weight(node: ir.Node) -> bool:
    """True unless ``node`` reads the DequantizeLinear of an initializer."""
    source = operand(node, 0).producer()
    return source is None or source.op_type != "DequantizeLinear" or constant(operand(source, 0)) is None


def _fold(graph: ir.Graph, quantize: ir.Node) -> None:
    weight, (dequantize,) = operand(quantize, 0), quantize.outputs[0].consumers()
    integers, axis = _integers(quantize), _axis(dequantize)
    transposes = list(dequantize.outputs[0].consumers())
    if all(node.op_type == "Transpose" for node in transposes):
        (perm,) = {tuple(node.attributes["perm"].as_ints()) for node in transposes}
        integers, axis = np.ascontiguousarray(integers.transpose(perm)), perm.index(axis)
        for node in transposes:
            node.outputs[0].replace_all_uses_with(dequantize.outputs[0])
            graph.remove(node, safe=True)
    if array(operand(dequantize, 1)).ndim:
        dequantize.attributes["axis"] = ir.AttrInt64("axis", axis)
    tensor = ir.tensor(integers, name=weight.name)
    dequantize.replace_input_with(0, weight)
    graph.remove(quantize, safe=True)
    weight.const_value, weight.dtype, weight.shape = tensor, tensor.dtype, ir.Shape(integers.shape)
    dequantize.outputs[0].shape = ir.Shape(integers.shape)


def _integers(quantize: ir.Node) -> np.ndarray:
    """What QuantizeLinear computes: round half to even, plus the zero point, saturated."""
    weight, scale, zero_point = (array(operand(quantize, index)) for index in range(3))
    if scale.ndim:
        broadcast = [-1 if dimension == _axis(quantize) else 1 for dimension in range(weight.ndim)]
        scale, zero_point = scale.reshape(broadcast), zero_point.reshape(broadcast)
    limits = np.iinfo(zero_point.dtype)
    rounded = np.rint(weight / scale) + zero_point.astype(np.float32)
    return rounded.clip(limits.min, limits.max).astype(zero_point.dtype)


def _axis(node: ir.Node) -> int:
    return node.attributes["axis"].as_int() if "axis" in node.attributes else 1
