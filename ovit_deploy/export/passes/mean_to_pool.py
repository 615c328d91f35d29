"""ReduceMean over height and width -> GlobalAveragePool."""

import onnx_ir as ir
from onnx_ir.tape import Tape

from ovit_deploy.export.passes.graph import array, constant, nodes, number, operand, replace


def mean_to_pool(model: ir.Model) -> ir.Model:
    """The mean of every channel of an image as the operator that is made for it.

    PyTorch's exporter writes ReduceMean. DeepSparse 1.8 does not know that one over height and width, and then leaves
    the whole network to its slow path: none of a ResNet's operators is supported, with the pooling all of them are.

    Requires:
        axes as constants (``fold_constants`` before).
    Ensures:
        no ReduceMean over height and width.
    """
    for node in nodes(model, "ReduceMean"):
        if is_over_pixels(node):
            replace(node, _pooled)
    return model


def is_over_pixels(node: ir.Node) -> bool:
    """True for the mean over the last two of four axes."""
    shape = operand(node, 0).shape
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if shape is None or len(shape) != 4 or constant(axes) is None:
        return False
    assert axes is not None
    return sorted(axis % 4 for axis in array(axes).tolist()) == [2, 3]


def _pooled(tape: Tape, node: ir.Node) -> ir.Value:
    """[N, C, 1, 1], or [N, C] where the node drops what it reduces."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    pooled = tape.op("GlobalAveragePool", [operand(node, 0)])
    keeps = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    return pooled if keeps else tape.op("Squeeze", [pooled, number(graph, [2, 3])])
