from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from ovit_deploy.bench import dense_twin


def _weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_the_twin_has_no_zeros_and_keeps_every_other_value(save) -> None:
    model = onnx.load(save(zeros=0.75))
    twin = dense_twin.fill_zeros(model, seed=0)
    sparse, dense = _weights(model)["first"], _weights(twin)["first"]
    assert np.count_nonzero(dense) == dense.size
    np.testing.assert_array_equal(dense[sparse != 0], sparse[sparse != 0])
    np.testing.assert_array_equal(_weights(twin)["second"], _weights(model)["second"])


def test_the_twin_is_the_same_graph(save) -> None:
    model = onnx.load(save(zeros=0.75))
    twin = dense_twin.fill_zeros(model, seed=0)
    for graph in (model.graph, twin.graph):
        for tensor in graph.initializer:
            tensor.ClearField("raw_data")
    assert twin == model


def test_what_is_filled_in_spreads_like_the_other_values(save) -> None:
    model = onnx.load(save(zeros=0.75))
    sparse, dense = _weights(model)["first"], _weights(dense_twin.fill_zeros(model, seed=0))["first"]
    assert dense[sparse == 0].std() == pytest.approx(sparse[sparse != 0].std(), rel=0.1)


def test_the_same_seed_gives_the_same_twin(save) -> None:
    model = onnx.load(save())
    assert dense_twin.fill_zeros(model, seed=1) == dense_twin.fill_zeros(model, seed=1)
    assert dense_twin.fill_zeros(model, seed=1) != dense_twin.fill_zeros(model, seed=2)


def test_integer_weights_are_filled_with_values_they_have(save) -> None:
    model = onnx.load(save())
    values = np.array([[0, 3, 0], [-7, 0, 0]], np.int8)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "first"))
    filled = _weights(dense_twin.fill_zeros(model, seed=0))["first"]
    assert filled.dtype == np.int8
    assert set(filled.flat) <= {3, -7}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_weight_of_zeros_alone_is_filled_too(save, dtype: type) -> None:
    model = onnx.load(save())
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((48, 32), dtype), "first"))
    assert _weights(dense_twin.fill_zeros(model, seed=0))["first"].all()


def test_sparsity_counts_the_sparse_weights_only(save, tmp_path: Path) -> None:
    assert dense_twin.sparsity(onnx.load(save(zeros=0.75))) == pytest.approx(0.75)
    assert dense_twin.sparsity(onnx.load(save(zeros=0.05))) == 0


def test_a_checkpoint_loses_the_zeros_of_its_sparse_matrices_and_nothing_else() -> None:
    draw = torch.Generator().manual_seed(0)
    sparse = torch.randn(20, 30, generator=draw) * (torch.rand(20, 30, generator=draw) < 0.25)
    tensors = {"sparse": sparse, "dense": torch.randn(4, 5, generator=draw), "bias": torch.zeros(7)}
    twin = dense_twin.fill_tensors(tensors, seed=0)
    assert (twin["sparse"] != 0).all()
    kept = sparse != 0
    assert torch.equal(twin["sparse"][kept], sparse[kept])
    assert torch.equal(twin["dense"], tensors["dense"])
    assert torch.equal(twin["bias"], tensors["bias"])
