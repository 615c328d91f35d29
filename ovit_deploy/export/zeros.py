"""Counting zeros in the weights of an ONNX graph."""

import numpy as np
import onnx_ir as ir


def count_zeros(model: ir.Model) -> dict[str, int]:
    """Zeros of every floating-point initializer with two or more dimensions, by name."""
    return {
        name: int(value.const_value.size - np.count_nonzero(value.const_value.numpy()))
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
        and value.const_value.dtype.is_floating_point()
        and len(value.const_value.shape) > 1
    }
