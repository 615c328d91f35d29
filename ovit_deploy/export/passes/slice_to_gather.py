"""Slice of one token -> Gather."""

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from ovit_deploy.export.passes.graph import array, constant, nodes, number, operand, replace


def slice_to_gather(model: ir.Model) -> ir.Model:
    """One token of all, such as ``x[:, 0:1]``, taken by its number.

    Class attention and networks that end in a class token norm that token alone. DeepSparse 1.8 dies compiling a
    LayerNorm, or a product, of a Slice of one token, and takes that of a Gather.

    Requires:
        starts and axes as constants (``fold_constants`` before).
    Ensures:
        no Slice of one token.
    """
    for node in nodes(model, "Slice"):
        if takes_one_token(node):
            replace(node, _gathered)
    return model


def takes_one_token(node: ir.Node) -> bool:
    """True for one of several along the middle of three axes: images x tokens x channels."""
    before, after = operand(node, 0).shape, node.outputs[0].shape
    axes = node.inputs[3] if len(node.inputs) > 3 else None
    if (
        before is None
        or after is None
        or len(before) != 3
        or constant(operand(node, 1)) is None
        or constant(axes) is None
    ):
        return False
    assert axes is not None
    return isinstance(before[1], int) and before[1] > 1 and after[1] == 1 and (array(axes) % 3).tolist() == [1]


def _gathered(tape: Tape, node: ir.Node) -> ir.Value:
    graph, shape = node.graph, operand(node, 0).shape
    assert isinstance(graph, ir.Graph) and shape is not None
    tokens = shape[1]
    assert isinstance(tokens, int)
    first = int(np.clip(array(operand(node, 1))[0], -tokens, tokens - 1))  # as Slice does
    return tape.op("Gather", [operand(node, 0), number(graph, [first])], {"axis": 1})
