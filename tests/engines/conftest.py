"""A graph of one matrix product, and images for it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """logits = images x WEIGHT, two images a run."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["images", "weight"], ["logits"])],
        "product",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [2, 12])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [2, 5])],
        [numpy_helper.from_array(WEIGHT, "weight")],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "product.onnx")
    return tmp_path / "product.onnx"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six images: three batches."""
    np.save(tmp_path / "images.npy", np.random.default_rng(1).standard_normal((6, 12)).astype(np.float32))
    return tmp_path / "images.npy"
