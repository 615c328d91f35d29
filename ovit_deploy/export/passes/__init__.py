"""Rewrites of the exported graph, one a file, each from one checked state to the next.

A pass is a function ``(onnx_ir.Model) -> onnx_ir.Model``. What it ``requires`` of the graph and ``ensures``
about it are facts about nodes, checked before and after; in between, no weight may win or lose a zero.

A new pass: one file with one function, one entry in ``PASSES``, its name in a profile under ``export/``.
"""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from ovit_deploy.errors import ExportError
from ovit_deploy.export.passes.decompose_hard_gates import decompose_hard_gates
from ovit_deploy.export.passes.decompose_layer_norm import counts_from_the_end, decompose_layer_norm
from ovit_deploy.export.passes.fold_batch_norm import fold_batch_norm, has_constants
from ovit_deploy.export.passes.fold_constants import fold_constants
from ovit_deploy.export.passes.fold_quantized_weights import (
    fold_quantized_weights,
    is_not_dequantized_weight,
    is_only_use,
    quantizes_weight,
)
from ovit_deploy.export.passes.fold_weights import fold_weights, has_one_use, is_of_weight
from ovit_deploy.export.passes.gemm_to_matmul import gemm_to_matmul, is_plain_gemm
from ovit_deploy.export.passes.graph import nodes
from ovit_deploy.export.passes.mean_to_pool import is_over_pixels, mean_to_pool
from ovit_deploy.export.passes.reorder_gelu import is_reordered, reorder_gelu
from ovit_deploy.export.passes.require_symmetric_outputs import (
    has_rounded_output,
    is_symmetric,
    require_symmetric_outputs,
)
from ovit_deploy.export.passes.scale_queries import scale_queries, scales_product
from ovit_deploy.export.passes.slice_to_gather import slice_to_gather, takes_one_token
from ovit_deploy.export.passes.to_integer_products import feeds_integer_products, is_of_input, to_integer_products
from ovit_deploy.export.zeros import count_zeros


@dataclass(frozen=True)
class Fact:
    """Something true of every node of one operator; ``says`` completes the sentence "the graph has ..."."""

    says: str
    operator: str
    holds: Callable[[ir.Node], bool]
    hint: str = "check the order of the passes in the profile, or leave this one out"


@dataclass(frozen=True)
class Pass:
    """A rewrite, what it needs of the graph and what it makes true."""

    run: Callable[[ir.Model], ir.Model]
    requires: tuple[Fact, ...] = ()
    ensures: tuple[Fact, ...] = ()


def without(operator: str) -> Fact:
    """The fact that no node has this operator."""
    return Fact(f"no {operator}", operator, lambda _: False)


PLAIN_GEMM = Fact("only Gemm without factors", "Gemm", is_plain_gemm)
UNTIED = Fact("transposed weights without other uses", "Transpose", has_one_use)
STORED_TRANSPOSED = Fact("no transposed weight", "Transpose", lambda node: not is_of_weight(node))
AXES_FROM_END = Fact("LayerNormalization over the last axes", "LayerNormalization", counts_from_the_end)
GELU_ORDERED = Fact("GELU ending in a product with 0.5", "Erf", is_reordered)
ONE_QUANTIZER = Fact("quantized weights without other uses", "QuantizeLinear", is_only_use)
STORED_QUANTIZED = Fact(
    "no weight that is quantized in the graph", "QuantizeLinear", lambda node: not quantizes_weight(node)
)
INTEGERS_TRANSPOSED = Fact("no transposed quantized weight", "Transpose", is_not_dequantized_weight)
ONLY_PRODUCTS = Fact(
    "DequantizeLinear before products of two quantized factors only",
    "DequantizeLinear",
    feeds_integer_products,
    "outputs are rounded, or a factor is not: quantize with scheme default, or export --profile onnxruntime_int8",
)
ONLY_INPUTS = Fact("DequantizeLinear before convolutions in float only", "DequantizeLinear", is_of_input)
NO_PIXELS = Fact("no ReduceMean over height and width", "ReduceMean", lambda node: not is_over_pixels(node))
NO_TOKEN = Fact("no Slice of one token", "Slice", lambda node: not takes_one_token(node))
QUERIES_SCALED = Fact("no scaled product of activations", "Mul", lambda node: not scales_product(node))
KNOWN_STATISTICS = Fact("BatchNormalization of constants", "BatchNormalization", has_constants)
SYMMETRIC = Fact(
    "zero points of 0", "QuantizeLinear", is_symmetric, "quantize with scheme tensorrt: its activations are symmetric"
)
OUTPUTS_ROUNDED = Fact(
    "QuantizeLinear after each product of a sparse weight",
    "MatMul",
    has_rounded_output,
    "quantize with scheme tensorrt, and tensorrt_sparse in scheme_overrides for the sparse layers",
)

PASSES = {
    "gemm_to_matmul": Pass(gemm_to_matmul, (PLAIN_GEMM,), (without("Gemm"),)),
    "fold_weights": Pass(fold_weights, (UNTIED,), (STORED_TRANSPOSED,)),
    "fold_constants": Pass(fold_constants, (STORED_TRANSPOSED,), (without("Constant"), without("Identity"))),
    "decompose_layer_norm": Pass(decompose_layer_norm, (AXES_FROM_END,), (without("LayerNormalization"),)),
    "decompose_hard_gates": Pass(decompose_hard_gates, (), (without("HardSigmoid"), without("HardSwish"))),
    "fold_quantized_weights": Pass(fold_quantized_weights, (ONE_QUANTIZER,), (STORED_QUANTIZED, INTEGERS_TRANSPOSED)),
    "to_integer_products": Pass(
        to_integer_products, (STORED_QUANTIZED, without("Constant"), ONLY_PRODUCTS), (ONLY_INPUTS,)
    ),
    "require_symmetric_outputs": Pass(require_symmetric_outputs, (STORED_QUANTIZED,), (SYMMETRIC, OUTPUTS_ROUNDED)),
    "mean_to_pool": Pass(mean_to_pool, (without("Constant"),), (NO_PIXELS,)),
    "slice_to_gather": Pass(slice_to_gather, (without("Constant"),), (NO_TOKEN,)),
    "scale_queries": Pass(scale_queries, (without("Constant"),), (QUERIES_SCALED,)),
    "fold_batch_norm": Pass(fold_batch_norm, (KNOWN_STATISTICS,), (without("BatchNormalization"),)),
    "reorder_gelu": Pass(reorder_gelu, (without("Gelu"), without("Constant")), (GELU_ORDERED,)),
}


def apply(model: ir.Model, names: Iterable[str]) -> ir.Model:
    """The model after the passes of these names, in this order.

    Raises:
        ExportError: no such pass, a pass does not fit the graph, or a weight lost a zero.
    """
    for name in names:
        model = _checked(model, name, find_pass(name))
    return model


def find_pass(name: str) -> Pass:
    """The pass of that name.

    Raises:
        ExportError: there is none; the hint names the nearest.
    """
    if name in PASSES:
        return PASSES[name]
    near = difflib.get_close_matches(name, PASSES, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise ExportError(f"{name}: no such pass", f"{meant}there are {', '.join(PASSES)}")


def _checked(model: ir.Model, name: str, step: Pass) -> ir.Model:
    _check(model, name, "requires", step.requires)
    before = count_zeros(model)
    model = step.run(model)
    _check(model, name, "ensures", step.ensures)
    after = count_zeros(model)
    kept = [weight for weight in before if weight in after]  # the others were folded into something smaller
    lost = [f"{weight} ({before[weight]} -> {after[weight]})" for weight in kept if before[weight] != after[weight]]
    if lost:
        raise ExportError(
            f"pass {name} changed the zeros of {', '.join(lost)}",
            "this is a fault of the pass: leave it out of the profile",
        )
    return model


def _check(model: ir.Model, name: str, role: str, facts: Iterable[Fact]) -> None:
    for fact in facts:
        wrong = [node.name for node in nodes(model, fact.operator) if not fact.holds(node)]
        if wrong:
            raise ExportError(f"pass {name} {role} {fact.says}, but {wrong[0]} ({fact.operator}) is not so", fact.hint)
