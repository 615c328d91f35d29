"""x * (0.5 * (1 + erf)) -> (x * (1 + erf)) * 0.5."""

from functools import partial

import onnx_ir as ir
from onnx_ir.tape import Tape

from ovit_deploy.export.passes.graph import constant, nodes, replace


def reorder_gelu(model: ir.Model) -> ir.Model:
    """GELU multiplied in the order of PyTorch's older exporter, the only one that DeepSparse 1.8 fuses.

    The factor is a power of two, so rounding does not change: the values stay the same to the last bit.

    Requires:
        GELU in elementary operators (from opset 20 on it is one operator), constants as initializers.
    Ensures:
        no product of 0.5 and (1 + erf).
    """
    for erf in nodes(model, "Erf"):
        for halved in _halved(erf):
            for product in list(halved.outputs[0].consumers()):
                replace(product, partial(_reordered, halved=halved))
            model.graph.remove(halved, safe=True)
    return model


def is_reordered(erf: ir.Node) -> bool:
    """True unless the (1 + erf) of a GELU meets its 0.5 before it meets x."""
    return not _halved(erf)


def _halved(erf: ir.Node) -> list[ir.Node]:
    """The products 0.5 * (1 + erf)."""
    gates = [node for node in erf.outputs[0].consumers() if node.op_type == "Add"]
    products = [node for gate in gates for node in gate.outputs[0].consumers() if node.op_type == "Mul"]
    return [node for node in products if any(_is_half(value) for value in node.inputs)]


def _reordered(tape: Tape, product: ir.Node, *, halved: ir.Node) -> ir.Value:
    """(x * gate) * 0.5 for the product of x and ``halved``, 0.5 * gate."""
    x = next(value for value in product.inputs if value is not halved.outputs[0])
    half, gate = sorted(halved.inputs, key=_is_half, reverse=True)
    return tape.op("Mul", [tape.op("Mul", [x, gate]), half])


def _is_half(value: ir.Value | None) -> bool:
    tensor = constant(value)
    return tensor is not None and tensor.size == 1 and float(tensor.numpy().item()) == 0.5
