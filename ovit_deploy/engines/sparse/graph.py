"""An ONNX graph as something to walk along: who makes a value, who reads it, which values are constants."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import NodeProto, numpy_helper

from ovit_deploy.engines.sparse.network import Range
from ovit_deploy.errors import EngineError

# What only computes shapes; values that flow through a network have other readers beside these.
SHAPES = ("Shape",)


class Graph:
    """The graph of a model file.

    Args:
        path: of the file.

    Raises:
        EngineError: it is no ONNX file, or not whole.
    """

    def __init__(self, path: str) -> None:
        try:
            model = onnx.load(path)
            onnx.checker.check_model(model, full_check=False)
            self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        except (DecodeError, onnx.checker.ValidationError, OSError, ValueError, TypeError) as error:
            told = (str(error).splitlines() or [type(error).__name__])[0]
            raise EngineError(f"{path}: not a whole ONNX file ({told})", "export it again") from error
        if len(model.graph.input) != 1 or len(model.graph.output) != 1:
            raise EngineError(f"{path}: more than one input or output", "export an image classifier")
        self.input, self.output = model.graph.input[0], model.graph.output[0].name
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        self.makers: dict[str, NodeProto] = {}
        for node in model.graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = attribute(node, "value")
                continue
            self._add(node)

    def _add(self, node: NodeProto) -> None:
        self.makers.update(dict.fromkeys(node.output, node))
        for name in dict.fromkeys(node.input):
            self.readers[name].append(node)

    def replace(self, nodes: list[NodeProto], node: NodeProto) -> None:
        """Put ``node`` in the place of ``nodes``, whose last has its output."""
        for old in nodes:
            for name in old.output:
                self.makers.pop(name, None)
            for name in dict.fromkeys(old.input):
                self.readers[name] = [one for one in self.readers[name] if one is not old]
        self._add(node)

    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the input."""
        shape = [size.dim_value for size in self.input.type.tensor_type.shape.dim]
        if len(shape) != 4 or not all(shape[1:]):
            raise EngineError("the input is no batch of images of one size", "export with a fixed image size")
        return shape[1], shape[2], shape[3]

    def next(self, value: str, *operators: str) -> NodeProto | None:
        """The one reader of ``value`` that is one of ``operators``; None where there is none."""
        found = [node for node in self.readers[value] if node.op_type in operators]
        return found[0] if len(found) == 1 else None

    def expect(self, value: str, *operators: str) -> NodeProto:
        """As `next`, which there must be.

        Raises:
            EngineError: there is not; names the operator that stands there instead.
        """
        node = self.next(value, *operators)
        if node is None:
            others = [one for one in self.readers[value] if one.op_type not in SHAPES]
            raise refusal(others[0] if others else None, value, " or ".join(operators))
        return node

    def constant(self, name: str, reader: NodeProto) -> np.ndarray:
        """The value of a constant.

        Raises:
            EngineError: it is computed instead.
        """
        if name not in self.constants:
            raise refusal(reader, name, "a constant")
        return self.constants[name]

    def constant_of(self, node: NodeProto, value: str) -> np.ndarray:
        """The constant that a node of two inputs joins ``value`` with."""
        (other,) = [name for name in node.input if name != value] or [value]
        return self.constant(other, node)

    def quantized(self, value: str) -> tuple[str, Range | None]:
        """``value`` behind QuantizeLinear and DequantizeLinear, and their range; itself where there are none."""
        node = self.next(value, "QuantizeLinear")
        if node is None:
            return value, None
        scale, zero_point = self.constant(node.input[1], node), self.constant(node.input[2], node)
        if scale.size != 1 or zero_point.dtype not in (np.uint8, np.int8):
            raise refusal(node, value, "eight bits with one scale")
        shift = 128 if zero_point.dtype == np.int8 else 0  # the same steps, counted from 0
        found = Range(float(scale), int(zero_point) + shift)
        return self.expect(node.output[0], "DequantizeLinear").output[0], found


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value; tensors as arrays."""
    for one in node.attribute:
        if one.name == name:
            value = onnx.helper.get_attribute_value(one)
            return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
    return default


def refusal(node: NodeProto | None, value: str, wanted: str) -> EngineError:
    """What is said of the first operator that does not belong into the network."""
    found = f"{node.op_type} ({node.name or node.output[0]})" if node is not None else "nothing"
    return EngineError(
        f"{found} where {wanted} should read {value!r}: not the graph of an isotropic vision transformer",
        "export a timm VisionTransformer, a quantized one with --profile onnxruntime_int8; or use another engine",
    )
