"""Transpose(weight) -> the transposed weight."""

import numpy as np
import onnx_ir as ir

from ovit_deploy.export.passes.graph import constant, nodes, operand


def fold_weights(model: ir.Model) -> ir.Model:
    """Weights stored the way MatMul reads them (inputs x outputs), under the name they have in PyTorch.

    PyTorch's exporter stores ``torch.nn.Linear.weight`` as it is and transposes it in the graph; an engine
    that skips zeros looks for a constant. General constant folding would do it under a new name, and the
    zeros of the file could no longer be compared with those of the model, layer by layer.

    Requires:
        a transposed weight has no other use (no tied weights).
    Ensures:
        no Transpose of an initializer.
    """
    for node in nodes(model, "Transpose"):
        weight = operand(node, 0)
        if constant(weight) is not None:
            _fold(model.graph, weight, list(node.attributes["perm"].as_ints()))
    return model


def has_one_use(node: ir.Node) -> bool:
    """True if nothing but equal Transposes reads the weight that ``node`` transposes."""
    weight = operand(node, 0)
    perm = list(node.attributes["perm"].as_ints())
    readers = list(weight.consumers())
    return constant(weight) is None or all(
        reader.op_type == "Transpose" and list(reader.attributes["perm"].as_ints()) == perm for reader in readers
    )


def is_of_weight(node: ir.Node) -> bool:
    """True for the Transpose of an initializer."""
    return constant(operand(node, 0)) is not None


def _fold(graph: ir.Graph, weight: ir.Value, perm: list[int]) -> None:
    tensor, name = constant(weight), weight.name
    assert tensor is not None and name is not None
    folded = np.ascontiguousarray(tensor.numpy().transpose(perm))
    readers = list(weight.consumers())
    weight.const_value = ir.tensor(folded, name=name)
    weight.shape = ir.Shape(folded.shape)
    for reader in readers:
        reader.outputs[0].replace_all_uses_with(weight)
        graph.remove(reader, safe=True)
