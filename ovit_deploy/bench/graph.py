"""Reading an ONNX file: its input, its versions, its batch size."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from ovit_deploy.engines.base import Traits
from ovit_deploy.errors import EngineError, ModelError


@dataclass(frozen=True)
class Input:
    """The graph's one input: ``shape`` is that of one image, ``batch`` the fixed batch size or None."""

    name: str
    batch: int | None
    shape: tuple[int, ...]
    dtype: np.dtype


def load(path: Path) -> onnx.ModelProto:
    """The model in an ONNX file, with its external weights.

    Raises:
        ModelError: there is no such file, or it is not ONNX.
    """
    again = "export it again: ovit-deploy export --onnx"
    try:
        model = onnx.load(path)
    except FileNotFoundError as error:
        missing = error.filename or path
        raise ModelError(f"{missing}: no such file", "give an .onnx file, or the name of a timm model") from None
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: not an ONNX model: {error}", again) from None
    if not model.graph.node:
        raise ModelError(f"{path}: not an ONNX model: there is no graph in it", again)
    return model


def image_input(model: onnx.ModelProto) -> Input:
    """The input that takes the images.

    Raises:
        ModelError: there is not exactly one input, or its size is not fixed.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    names = ", ".join(value.name for value in inputs)
    if len(inputs) != 1:
        raise ModelError(f"the graph has {len(inputs)} inputs ({names}), bench times models with one", "")
    batch, *shape = [dim.dim_value or None for dim in inputs[0].type.tensor_type.shape.dim] or [None]
    if not shape or None in shape:
        raise ModelError(f"input {names}: only the batch size may be dynamic", "fix its height and width")
    dtype = helper.tensor_dtype_to_np_dtype(inputs[0].type.tensor_type.elem_type)
    return Input(names, batch, tuple(size for size in shape if size), dtype)


def rounds(model: onnx.ModelProto) -> bool:
    """Whether the model rounds activations to integers, so that the last bit of a float decides between two steps."""
    return any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in model.graph.node)


def with_batch(model: onnx.ModelProto, batch_size: int) -> onnx.ModelProto:
    """A copy of the model that takes ``batch_size`` images a run.

    A symbolic batch dimension becomes a number wherever the graph writes its name. A file with a fixed batch
    size is not rewritten: its reshapes hold that number.

    Raises:
        ModelError: the file is fixed to another batch size.
    """
    images = image_input(model)
    if images.batch not in (None, batch_size):
        raise ModelError(
            f"the file is fixed to batch size {images.batch}, {batch_size} was asked for",
            f"--batch-size {images.batch}, or export with a dynamic batch",
        )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    value = next(value for value in copy.graph.input if value.name == images.name)
    first = value.type.tensor_type.shape.dim[0]
    symbol = first.dim_param
    first.dim_value = batch_size
    for dim in _dims(copy.graph):
        if symbol and dim.dim_param == symbol:
            dim.dim_value = batch_size
    return copy


def refusal(model: onnx.ModelProto, engine: str, traits: Traits) -> EngineError | None:
    """Why ``engine`` cannot run this file: it is too new, or has an operator that is computed wrong; None if it can."""
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    checks = (("IR version", model.ir_version, traits.max_ir), ("opset", opset, traits.max_opset))
    for what, found, limit in checks:
        if limit is not None and found > limit:
            return EngineError(
                f"{engine} reads ONNX up to {what} {limit}, the file has {found}",
                f"export for it: ovit-deploy export --onnx --profile {engine}",
            )
    if traits.wrong_depthwise is not None and _has_depthwise(model, *traits.wrong_depthwise):
        kernel, side = traits.wrong_depthwise
        return EngineError(
            f"{engine} computes {kernel}x{kernel} depthwise convolutions of {side}x{side} pixels wrong",
            "export for images of another size",
        )
    return None


def _has_depthwise(model: onnx.ModelProto, kernel: int, side: int) -> bool:
    """Whether a depthwise convolution with a kernel of that size gives images of that size."""
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.value_info
    }
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    return any(
        node.op_type in ("Conv", "ConvInteger")
        and any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
        and weights.get(node.input[1], [])[1:] == [1, kernel, kernel]
        and shapes.get(node.output[0], [])[2:] == [side, side]
        for node in model.graph.node
    )


def _dims(graph: onnx.GraphProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield from value.type.tensor_type.shape.dim
