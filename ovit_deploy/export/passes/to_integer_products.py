"""DequantizeLinear, MatMul or Conv -> MatMulInteger or ConvInteger, Add, Cast, Mul; or rounded factors in float."""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.tape import Tape

from ovit_deploy.errors import ExportError
from ovit_deploy.export.passes.graph import array, initializer, is_constant, nodes, operand, replace
from ovit_deploy.export.passes.integer_forms import has_integer_form

_PRODUCTS = {"MatMul": "MatMulInteger", "Conv": "ConvInteger"}


def to_integer_products(model: ir.Model) -> ir.Model:
    """Products of two quantized factors in integers: the only INT8 form that DeepSparse 1.8 runs fast.

        y = (MatMulInteger(q_a, q_b, zero_a, zero_b) + round(bias / (s_a s_b))) * (s_a s_b)

    The bias is an int32 and is added before the Cast to float, so that it differs by half of s_a s_b at most.

    Convolutions that DeepSparse has in float only (``integer_forms``) take the same rounded factors: the input is
    dequantized, the weight stored as the multiples of its scale.

    Requires:
        weights are stored as integers (``fold_quantized_weights`` before), constants as initializers, and nothing is
        quantized but the factors of products.
    Ensures:
        no DequantizeLinear of a weight, and none but before such convolutions.

    Raises:
        ExportError: a bias does not fit into 32 bits.
    """
    for operator in _PRODUCTS:
        for node in nodes(model, operator):
            if all(_dequantize(operand(node, index)) is not None for index in (0, 1)):
                _rewrite(node) if has_integer_form(node) else _store_float(node)
    return RemoveUnusedNodesPass()(model).model


def feeds_integer_products(dequantize: ir.Node) -> bool:
    """True if all that reads ``dequantize`` becomes a product of integers."""
    readers = list(dequantize.outputs[0].consumers())
    return all(
        reader.op_type in _PRODUCTS and all(_dequantize(operand(reader, index)) is not None for index in (0, 1))
        for reader in readers
    )


def is_of_input(dequantize: ir.Node) -> bool:
    """True if ``dequantize`` makes the input of a convolution in float."""
    readers = list(dequantize.outputs[0].consumers())
    return not is_constant(operand(dequantize, 0)) and not any(has_integer_form(reader) for reader in readers)


def _store_float(product: ir.Node) -> None:
    """The weight as the multiples of its scale, under its name."""
    dequantize = _dequantize(operand(product, 1))
    assert dequantize is not None
    weight, scale = operand(dequantize, 0), array(operand(dequantize, 1))
    per_channel = scale.reshape([-1] + [1] * (array(weight).ndim - 1)) if scale.ndim else scale
    multiples = array(weight).astype(np.float32) * per_channel
    weight.const_value, weight.dtype = ir.tensor(multiples, name=weight.name), ir.DataType.FLOAT
    product.replace_input_with(1, weight)


def _rewrite(product: ir.Node) -> None:
    """The product with its bias: a third input of Conv, the Add after MatMul."""
    readers = list(product.outputs[0].consumers())
    if product.op_type == "MatMul" and len(readers) == 1 and readers[0].op_type == "Add":
        biases = [
            value for value in readers[0].inputs if value is not None and is_constant(value) and array(value).ndim == 1
        ]
        if biases:
            replace(readers[0], lambda tape, _: _integer(tape, product, biases[0]))
            return
    bias = product.inputs[2] if product.op_type == "Conv" and len(product.inputs) > 2 else None
    replace(product, lambda tape, _: _integer(tape, product, bias))


def _integer(tape: Tape, product: ir.Node, bias: ir.Value | None) -> ir.Value:
    left, right = _dequantize(operand(product, 0)), _dequantize(operand(product, 1))
    assert left is not None and right is not None and product.graph is not None
    graph, name = product.graph, operand(right, 0).name
    factors = [operand(left, 0), operand(right, 0), operand(left, 2), _scalar_zero(graph, right)]
    result = tape.op(_PRODUCTS[product.op_type], factors, dict(product.attributes))
    scale = (array(operand(left, 1)) * array(operand(right, 1))).astype(np.float32)
    channels = [-1, 1, 1] if product.op_type == "Conv" else [-1]
    if bias is not None:
        stored = initializer(graph, f"{bias.name}_int32", _bias(bias, scale).reshape(channels))
        result = tape.op("Add", [result, stored])
    result = tape.op("Cast", [result], {"to": ir.DataType.FLOAT})
    factor = initializer(graph, f"{name}_scale_of_product", scale.reshape(channels) if scale.ndim else scale)
    return tape.op("Mul", [result, factor])


def _dequantize(value: ir.Value) -> ir.Node | None:
    node = value.producer()
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _bias(bias: ir.Value, scale: np.ndarray) -> np.ndarray:
    integers = np.rint(array(bias).astype(np.float64) / scale)
    if not (np.abs(integers) < 2**31).all():
        raise ExportError(
            f"{bias.name}: too large for 32 bits at its layer's scale", "keep this layer in float: ignore"
        )
    return integers.astype(np.int32)


def _scalar_zero(graph: ir.Graph, dequantize: ir.Node) -> ir.Value:
    """The zero point of the right factor; one for all channels, as those of symmetric weights are all 0."""
    value = operand(dequantize, 2)
    points = np.unique(array(value))
    assert points.size == 1, f"{value.name}: zero points differ by channel"
    return value if not array(value).ndim else initializer(graph, f"zero_point_{points.dtype}", points[0])
