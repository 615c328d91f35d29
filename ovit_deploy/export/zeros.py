"""Counting zeros in the weights of an ONNX graph: values of 0.0, or integers that are the zero point."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

# Where the operators that read integers keep the zero point of which input.
_ZERO_POINTS = {"DequantizeLinear": {0: 2}, "MatMulInteger": {0: 2, 1: 3}, "ConvInteger": {0: 2, 1: 3}}


@dataclass(frozen=True)
class Stored:
    """One weight of the file: how many values it has, and how many of them are zero."""

    size: int
    zeros: int


def count_zeros(model: ir.Model) -> dict[str, int]:
    """Zeros of every weight with two or more dimensions, by name."""
    return {name: weight.zeros for name, weight in stored_weights(model, least_dimensions=2).items()}


def stored_weights(model: ir.Model, *, least_dimensions: int = 0) -> dict[str, Stored]:
    """Every floating-point initializer, and every one of integers with a zero point."""
    counted = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or len(tensor.shape) < least_dimensions:
            continue
        zero = 0.0 if tensor.dtype.is_floating_point() else _zero_point(value)
        if zero is not None:
            counted[name] = Stored(tensor.size, int((tensor.numpy() == zero).sum()))
    return counted


def _zero_point(value: ir.Value) -> np.ndarray | None:
    """The zero point with which a weight of integers is read, in a shape that compares with it; None without one."""
    for node, index in value.uses():
        place = _ZERO_POINTS.get(node.op_type, {}).get(index)
        if place is None or len(node.inputs) <= place:
            continue
        point = node.inputs[place]
        assert point is not None and point.const_value is not None, f"{node.name}: a zero point that is computed"
        points = point.const_value.numpy()
        if not points.ndim or points.size == 1:
            return points.reshape(())
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        assert value.shape is not None
        return points.reshape([-1 if dimension == axis else 1 for dimension in range(len(value.shape))])
    return None
