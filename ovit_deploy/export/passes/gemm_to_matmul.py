"""Gemm -> MatMul + Add."""

import onnx_ir as ir
from onnx_ir.tape import Tape

from ovit_deploy.export.passes.graph import nodes, operand, replace


def gemm_to_matmul(model: ir.Model) -> ir.Model:
    """Every linear layer as MatMul + Add, as the blocks have it: DeepSparse 1.8 fuses that form and not Gemm.

    A transposed weight becomes a Transpose node, which ``fold_weights`` folds away.

    Requires:
        alpha = beta = 1 and the activation as it is (``torch.nn.Linear`` gives nothing else).
    Ensures:
        no Gemm.
    """
    for node in nodes(model, "Gemm"):
        replace(node, _matmul_add)
    return model


def is_plain_gemm(node: ir.Node) -> bool:
    """True for y = x W + b or y = x W^T + b, without factors."""
    factors = [node.attributes[key].as_float() for key in ("alpha", "beta") if key in node.attributes]
    return all(factor == 1 for factor in factors) and not _flag(node, "transA")


def _matmul_add(tape: Tape, node: ir.Node) -> ir.Value:
    weight = operand(node, 1)
    if _flag(node, "transB"):
        weight = tape.op("Transpose", [weight], {"perm": [1, 0]})
    product = tape.op("MatMul", [node.inputs[0], weight])
    return tape.op("Add", [product, node.inputs[2]]) if len(node.inputs) > 2 else product


def _flag(node: ir.Node, name: str) -> bool:
    return name in node.attributes and node.attributes[name].as_int() != 0
