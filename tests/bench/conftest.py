"""A small classifier as an ONNX file, with and without zeros."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ovit_deploy.bench.source import Source

Save = Callable[..., Path]


def classifier(*, zeros: float, batch: int | str, ir_version: int) -> onnx.ModelProto:
    """Images [batch, 3, 4, 4] -> Flatten -> MatMul, Relu, MatMul -> logits [batch, 10]; the first weight is sparse."""
    draw = np.random.default_rng(0)
    first, second = draw.standard_normal((48, 32)), draw.standard_normal((32, 10))
    first.flat[draw.permutation(first.size)[: round(zeros * first.size)]] = 0
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "first"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["positive"]),
            helper.make_node("MatMul", ["positive", "second"], ["logits"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 10])],
        [
            numpy_helper.from_array(weight.astype(np.float32), name)
            for name, weight in zip(("first", "second"), (first, second), strict=True)
        ],
    )
    return helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a classifier with these zeros, batch dimension and IR version; gives its path."""

    def write(*, zeros: float = 0.75, batch: int | str = "batch", ir_version: int = 8) -> Path:
        path = tmp_path / "model.onnx"
        onnx.save(classifier(zeros=zeros, batch=batch, ir_version=ir_version), path)
        return path

    return write


@pytest.fixture
def sparse(save: Save) -> Source:
    """A classifier with 75 % zeros."""
    return Source("classifier", (save(),))
