"""Changes nothing; refuses a graph whose sparse products TensorRT would not run in its sparse INT8 kernels."""

import onnx_ir as ir

from ovit_deploy.export.passes.graph import array, constant, is_constant, operand

LEAST_SPARSITY = 0.5  # of a weight that counts as sparse: 2:4 has as many zeros


def require_symmetric_outputs(model: ir.Model) -> ir.Model:
    """The graph as it is.

    TensorRT's sparse INT8 kernels take and give int8, with zero points of 0: the output of each sparse product, with
    its bias and its GELU where it has them, must be quantized again before anything else reads it.

    Requires:
        weights are stored as integers (``fold_quantized_weights`` before), GELU is one operator (opset 20).
    Ensures:
        zero points of 0; a QuantizeLinear after each product of a weight of which half or more is zero.
    """
    return model


def is_symmetric(quantize: ir.Node) -> bool:
    """True if the zero point is 0."""
    return not array(operand(quantize, 2)).any()


def has_rounded_output(product: ir.Node) -> bool:
    """True unless the product of a sparse integer weight is read by something else than QuantizeLinear."""
    return not _is_sparse(operand(product, 1).producer()) or _is_rounded(product.outputs[0])


def _is_sparse(dequantize: ir.Node | None) -> bool:
    if dequantize is None or dequantize.op_type != "DequantizeLinear" or constant(operand(dequantize, 0)) is None:
        return False
    return bool((array(operand(dequantize, 0)) == 0).mean() >= LEAST_SPARSITY)


def _is_rounded(value: ir.Value) -> bool:
    """Whether all that reads ``value``, after a bias and a GELU, is QuantizeLinear."""
    readers = list(value.consumers())
    return bool(readers) and all(
        reader.op_type == "QuantizeLinear" or (_continues(reader) and _is_rounded(reader.outputs[0]))
        for reader in readers
    )


def _continues(reader: ir.Node) -> bool:
    return reader.op_type == "Gelu" or (reader.op_type == "Add" and any(map(is_constant, reader.inputs)))
