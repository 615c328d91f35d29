"""(Q K) * scale -> (Q * scale) K."""

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.tape import Tape

from ovit_deploy.export.passes.graph import array, is_constant, nodes, operand, replace


def scale_queries(model: ir.Model) -> ir.Model:
    """The scale of an attention on its queries, before their product with the keys, as ViTs have it.

    DeepSparse 1.8 dies compiling an attention whose product is scaled (LeViT, EfficientFormer), if its heads have 16
    numbers or more, and takes the other form.

    Requires:
        constants as initializers (``fold_constants`` before).
    Ensures:
        no product of two activations that is multiplied by one number.
    """
    for node in nodes(model, "Mul"):
        if scales_product(node):
            replace(node, lambda tape, mul: tape.op("MatMul", _scaled(tape, mul)))
    return RemoveUnusedNodesPass()(model).model


def scales_product(node: ir.Node) -> bool:
    """True if ``node`` multiplies a MatMul of activations, which nothing else reads, by one number."""
    product, scale = _factors(node)
    return (
        product is not None
        and is_constant(scale)
        and array(scale).size == 1
        and array(scale).ndim <= 2  # more would give the product more dimensions
        and not any(map(is_constant, product.inputs))
        and len(product.outputs[0].consumers()) == 1
        and not product.outputs[0].is_graph_output()
    )


def _factors(node: ir.Node) -> tuple[ir.Node | None, ir.Value]:
    """The MatMul among the two factors, and the other one."""
    left, right = operand(node, 0), operand(node, 1)
    for product, other in ((left.producer(), right), (right.producer(), left)):
        if product is not None and product.op_type == "MatMul":
            return product, other
    return None, right


def _scaled(tape: Tape, node: ir.Node) -> list[ir.Value]:
    product, scale = _factors(node)
    assert product is not None
    return [tape.op("Mul", [operand(product, 0), scale]), operand(product, 1)]
