"""Shape arithmetic -> constants."""

import onnx_ir as ir
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    LiftConstantsToInitializersPass,
    NameFixPass,
    RemoveUnusedNodesPass,
)
from onnxscript.optimizer import fold_constants as fold
from onnxscript.rewriter import rewrite

from ovit_deploy.export.passes.fold_batch_norm import factor_and_summand, would_make_zeros
from ovit_deploy.export.passes.graph import nodes, replace


def fold_constants(model: ir.Model) -> ir.Model:
    """The graph without arithmetic on known shapes, without copies, without nodes that nobody reads.

    onnxscript folds and simplifies (a Reshape whose shape has one unknown gets -1 there), then all constants
    become initializers. Equal initializers stay apart: merged, a pruned layer would lose its name. Batch norms are
    taken into the weights of their convolutions; those with a weight of 0 are spelled out: they would make new zeros.
    What layers read of constants (coordinates, of which they make positions) is rounded here.

    Requires:
        weights are stored as MatMul reads them (``fold_weights`` before): small ones would lose their names.
    Ensures:
        no Constant and no Identity.
    """
    fold(model, onnx_shape_inference=True, should_fold=_rounds)
    for node in nodes(model, "BatchNormalization"):
        if would_make_zeros(node):
            replace(node, factor_and_summand)
    model = rewrite(model)
    fold(model, onnx_shape_inference=True, should_fold=_rounds)
    tidy = Sequential(
        RemoveUnusedNodesPass(),
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        CommonSubexpressionEliminationPass(),
        RemoveUnusedNodesPass(),
        NameFixPass(),
    )
    return tidy(model).model


def _rounds(node: ir.Node) -> bool | None:
    """True for what onnxscript would keep: constants that are rounded where layers read them; None: its own rules."""
    return node.op_type == "QuantizeLinear" or None
