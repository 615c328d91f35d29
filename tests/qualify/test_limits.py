import pytest

from ovit_deploy.qualify import limits, table
from ovit_deploy.qualify.task import Row

NO_OPERATOR = "RuntimeError: NM: error: Could not find an implementation for ConvInteger(10) node with name 'node_1'"


@pytest.mark.parametrize(
    ("message", "short"),
    [
        (f"deepsparse failed loading model.onnx: {NO_OPERATOR}", "no ConvInteger"),
        (
            "deepsparse computes 7x7 depthwise convolutions of 4x4 pixels wrong",
            "7x7 depthwise convolutions of 4x4 pixels wrong",
        ),
        ("deepsparse: logits differ from PyTorch's by nan", None),
        ("deepsparse died (SIGABRT) loading model.onnx", None),
    ],
)
def test_only_what_is_known_is_a_limit(message: str, short: str | None) -> None:
    assert limits.known("deepsparse", message) == short


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_other_engines_have_no_limits(engine: str) -> None:
    assert limits.known(engine, NO_OPERATOR) is None


def test_an_engine_that_dies_in_its_compiler_is_told_to_be_at_fault() -> None:
    died = "deepsparse died (exit code 1) loading model.onnx: Assertion at src/lib/engine/gemm_utils.cpp:68"
    row = Row("levit_128s", failures={"deepsparse fp32": died})
    assert not row.qualifies
    (remark,) = table.remarks(row)
    assert remark.startswith("ds FP32: a fault of deepsparse: its compiler fails its own assertion (gemm_utils.cpp:68)")
    other = "deepsparse died (SIGKILL) loading model.onnx: killed"
    assert limits.plainly(other) == other


def test_a_refusal_is_a_remark_and_a_failure_is_one_too_many() -> None:
    row = Row("test_convnext", refused={"deepsparse int8": "no ConvInteger"}, slow={"deepsparse fp32": 0.25})
    assert row.qualifies
    assert table.remarks(row) == ["ds INT8: no ConvInteger", "ds FP32: 25% of operators slow"]
    row.failures["openvino int8"] = "openvino: logits and PyTorch's have a cosine of 0.9000"
    assert not row.qualifies
    assert table.remarks(row)[0] == "ov INT8: openvino: logits and PyTorch's have a cosine of 0.9000"
    row.failures = {"prune": "word " * 100}
    assert len(table.remarks(row)[0]) < 180
