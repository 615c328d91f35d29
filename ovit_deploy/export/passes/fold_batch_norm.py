"""BatchNormalization -> Mul and Add, its factors in those of an integer product where they follow one."""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.tape import Tape

from ovit_deploy.export.passes.graph import array, constant, initializer, is_constant, nodes, operand, replace


def fold_batch_norm(model: ir.Model) -> ir.Model:
    """Batch norms as a factor and a summand for each channel.

        weight * (x - mean) / sqrt(var + eps) + bias = x * factor + summand

    After a product of integers, whose result is multiplied by the scales of its factors, those take up the factor.
    DeepSparse 1.8 knows that form; on a BatchNormalization there it dies. Batch norms after convolutions in float are
    gone before this pass: ``fold_constants`` takes them into the weights.

    Requires:
        weights and statistics as constants (``fold_constants`` before).
    Ensures:
        no BatchNormalization.
    """
    for node in nodes(model, "BatchNormalization"):
        replace(node, factor_and_summand)
    return RemoveUnusedNodesPass()(model).model


def has_constants(node: ir.Node) -> bool:
    """True if weights and statistics are known, and so is the number of axes."""
    return operand(node, 0).shape is not None and all(is_constant(value) for value in node.inputs[1:])


def would_make_zeros(node: ir.Node) -> bool:
    """True after float weights if that of a channel is 0, as timm begins the last batch norm of a ResNet's blocks."""
    product = operand(node, 0).producer()
    takes_it = product is not None and len(product.inputs) > 1 and is_constant(product.inputs[1])
    return takes_it and has_constants(node) and not array(operand(node, 1)).all()


def factor_and_summand(tape: Tape, node: ir.Node) -> ir.Value:
    """What a batch norm computes, in two operators."""
    graph, x = node.graph, operand(node, 0)
    assert isinstance(graph, ir.Graph) and x.shape is not None
    weight, bias, mean, variance = (array(operand(node, index)).astype(np.float64) for index in range(1, 5))
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    per_channel = [-1] + [1] * (len(x.shape) - 2)
    factor = (weight / np.sqrt(variance + epsilon)).reshape(per_channel)
    name, summand = operand(node, 1).name, bias.reshape(per_channel) - mean.reshape(per_channel) * factor
    if (scaled := _scaled(x)) is not None:
        x, scale = scaled
        factor = factor * scale
    product = tape.op("Mul", [x, initializer(graph, f"{name}_factor", factor.astype(np.float32))])
    return tape.op("Add", [product, initializer(graph, f"{name}_summand", summand.astype(np.float32))])


def _scaled(x: ir.Value) -> tuple[ir.Value, np.ndarray] | None:
    """What is multiplied by a constant to give ``x``, and that constant, where ``x`` has no other use."""
    product = x.producer()
    if product is None or product.op_type != "Mul" or len(list(x.consumers())) != 1:
        return None
    left, right = operand(product, 0), operand(product, 1)
    return (left, array(right)) if constant(right) is not None else None
