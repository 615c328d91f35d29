from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from ovit_deploy.bench import evidence
from ovit_deploy.bench.latency import Settings, measure_latency
from ovit_deploy.bench.source import Source
from ovit_deploy.bench.subject import prepare
from ovit_deploy.engines import ENGINES, environments


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "deepsparse"])
def test_every_runtime_tells_its_layers_and_which_are_pruned(sparse: Source, tmp_path: Path, engine: str) -> None:
    pins = ENGINES[engine].pins
    if pins and not environments.is_complete(environments.location(engine), pins):
        pytest.skip("DeepSparse is not installed; ovit-deploy engines install deepsparse")
    subject = prepare(sparse, batch_size=2, seed=0, folder=tmp_path)
    rows = measure_latency(subject, Settings((engine,), iterations=2, timeout_s=120, evidence=True))
    for row in rows:
        assert row.error is None
        found = row.evidence
        assert found
        assert found.error == ""
        assert sum(found.kernels.values()) == 1
        assert found.pruned_ms + found.rest_ms == pytest.approx(sum(layer["ms"] for layer in found.layers))
        assert 0 <= found.share <= 1  # so small a layer may take less than DeepSparse's clock tells
        assert {"names", "type", "kernel", "precision", "ms", "pruned"} <= set(found.layers[0])


def layer(name: str, ms: float, precision: str = "f32") -> dict[str, object]:
    return {"names": [name], "type": "MatMul", "kernel": "gemm", "precision": precision, "ms": ms}


def test_amdahls_law_bounds_the_speed_up() -> None:
    layers = [layer("fc1", 6, "i8"), layer("softmax", 2), layer("fc2", 2), layer("bias", 0, "none")]
    found = evidence.split(layers, frozenset({"fc1", "fc2", "bias"}))
    assert (found.pruned_ms, found.rest_ms, found.share) == (8, 2, 0.8)
    assert found.ceiling == pytest.approx(5)
    assert found.kernels == {"i8": 1, "f32": 1}


def test_nothing_pruned_buys_nothing() -> None:
    assert evidence.split([layer("softmax", 2)], frozenset({"fc1"})).ceiling == 1
    assert evidence.Evidence(error="no profiler").ceiling == 1


def test_a_pruned_layer_is_known_by_its_weight_product_and_bias(save) -> None:
    names = evidence.pruned_names([onnx.load(save(zeros=0.75))])
    assert names == {"first", "hidden", "MatMul_1"}
    assert evidence.pruned_names([onnx.load(save(zeros=0.0))]) == names, "the head is not pruned"


def test_a_quantized_weight_is_found_behind_its_scales() -> None:
    weight = helper.make_tensor("w", TensorProto.INT8, (4, 8), [0, 3, 0, 0] * 8)
    bias, scale = (helper.make_tensor(name, TensorProto.FLOAT, (), [1.0]) for name in ("b", "s"))
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["w_float"]),
        helper.make_node("MatMul", ["x", "w_float"], ["product"], name="node_product"),
        helper.make_node("Add", ["product", "b"], ["y"], name="node_bias"),
    ]
    values = [helper.make_tensor_value_info(*one) for one in (("x", 1, [1, 4]), ("y", 1, [1, 8]))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight, bias, scale])
    names = evidence.pruned_names([helper.make_model(graph)])
    assert names == {"w", "product", "y", "node_product", "node_bias"}
