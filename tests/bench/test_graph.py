from pathlib import Path

import numpy as np
import onnx
import pytest

from ovit_deploy.bench import graph
from ovit_deploy.engines import ENGINES
from ovit_deploy.errors import ModelError


def test_the_input_is_read_with_its_shape(save) -> None:
    found = graph.image_input(graph.load(save()))
    assert (found.name, found.batch, found.shape, found.dtype) == ("images", None, (3, 4, 4), np.dtype(np.float32))


def test_a_symbolic_batch_becomes_a_number_everywhere(save) -> None:
    fixed = graph.with_batch(graph.load(save()), 4)
    for value in (*fixed.graph.input, *fixed.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 4
    onnx.checker.check_model(fixed, full_check=True)


def test_a_file_fixed_to_the_wanted_batch_stays_as_it_is(save) -> None:
    model = graph.load(save(batch=4))
    assert graph.with_batch(model, 4) == model


def test_a_file_fixed_to_another_batch_is_refused(save) -> None:
    with pytest.raises(ModelError, match="fixed to batch size 4, 1 was asked for") as raised:
        graph.with_batch(graph.load(save(batch=4)), 1)
    assert "--batch-size 4" in raised.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: no such file"):
        graph.load(tmp_path / "none.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX model"):
        graph.load(tmp_path / "broken.onnx")


def test_a_graph_with_two_inputs_is_refused(save) -> None:
    model = graph.load(save())
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, [1]))
    with pytest.raises(ModelError, match=r"2 inputs \(images, mask\)"):
        graph.image_input(model)


def test_a_file_too_new_for_deepsparse_is_refused_before_it_runs(save) -> None:
    model = graph.load(save(ir_version=10))
    refused = graph.refusal(model, "deepsparse", ENGINES["deepsparse"])
    assert refused is not None
    assert refused.message == "deepsparse reads ONNX up to IR version 9, the file has 10"
    assert graph.refusal(model, "onnxruntime", ENGINES["onnxruntime"]) is None


@pytest.mark.parametrize(
    ("kernel", "pixels", "group", "wrong"),
    [(7, 4, 8, True), (7, 5, 8, False), (5, 4, 8, False), (7, 4, 1, False)],
)
def test_a_convolution_that_deepsparse_computes_wrong_is_refused(
    kernel: int, pixels: int, group: int, wrong: bool
) -> None:
    value, channels = onnx.helper.make_tensor_value_info, max(group, 1)
    weight = onnx.numpy_helper.from_array(np.ones((channels, 1, kernel, kernel), np.float32), "weight")
    nodes = [
        onnx.helper.make_node("Conv", ["images", "weight"], ["mixed"], group=group, pads=[kernel // 2] * 4),
        onnx.helper.make_node("Relu", ["mixed"], ["logits"]),
    ]
    shape = [1, channels, pixels, pixels]
    ends = [value("images", 1, shape)], [value("logits", 1, shape)]
    made = onnx.helper.make_graph(nodes, "graph", *ends, [weight])
    model = onnx.helper.make_model(made, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model = onnx.shape_inference.infer_shapes(model)
    refused = graph.refusal(model, "deepsparse", ENGINES["deepsparse"])
    assert (refused is not None) == wrong
    if refused is not None:
        assert refused.message == "deepsparse computes 7x7 depthwise convolutions of 4x4 pixels wrong"
    assert graph.refusal(model, "openvino", ENGINES["openvino"]) is None
