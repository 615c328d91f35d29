from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ovit_deploy.engines import environments
from ovit_deploy.engines.process import EngineProcess
from ovit_deploy.errors import EngineError

pytest.importorskip("openvino", reason="OpenVINO is not installed; pip install 'ovit-deploy[openvino]'")
BF16 = "avx512_bf16" in environments.cpu_flags() or "amx_bf16" in environments.cpu_flags()


def started(setup: str) -> EngineProcess:
    return EngineProcess(setup, environments.prepare("openvino", print), timeout_s=60)


def test_it_computes_what_the_graph_says_in_float32(product: Path, images: Path) -> None:
    with started("openvino") as process:
        about = process.load(product, images, batch_size=2, threads=1).about
        process.infer(images, images.with_name("logits.npy"))
    weight = numpy_helper.to_array(onnx.load(product).graph.initializer[0])
    np.testing.assert_allclose(np.load(images.with_name("logits.npy")), np.load(images) @ weight, rtol=1e-5, atol=1e-5)
    assert set(about["precisions"]) == {"f32"}
    assert about["threads"] == 1


@pytest.mark.skipif(not BF16, reason="this CPU has no bfloat16 instructions")
def test_bfloat16_is_used_where_asked_for_and_told(product: Path, images: Path) -> None:
    with started("openvino:precision=bf16") as process:
        about = process.load(product, images, batch_size=2, threads=1).about
        process.infer(images, images.with_name("logits.npy"))
    weight = numpy_helper.to_array(onnx.load(product).graph.initializer[0])
    difference = np.abs(np.load(images.with_name("logits.npy")) - np.load(images) @ weight).max()
    assert 0 < difference < 0.1
    products = [layer["precision"] for layer in about["layers"] if "logits" in layer["layer"].split(",")]
    assert products == ["bf16"]


@pytest.mark.skipif(BF16, reason="this CPU has bfloat16 instructions")
def test_bfloat16_is_refused_where_it_would_be_ignored(product: Path, images: Path) -> None:
    with started("openvino:precision=bf16") as process, pytest.raises(EngineError, match="no bfloat16 instructions"):
        process.load(product, images, batch_size=2, threads=1)


def test_the_sparse_weights_switch_reaches_the_runtime(product: Path, images: Path) -> None:
    with started("openvino:sparse_weights=0.5") as process:
        assert process.load(product, images, batch_size=2, threads=1).about["sparse_weights"] == 0.5


def test_a_truncated_file_is_an_error_with_its_reason(product: Path, images: Path) -> None:
    product.write_bytes(product.read_bytes()[:100])
    with (
        started("openvino") as process,
        pytest.raises(EngineError, match=r"openvino failed loading product\.onnx: .*Unable to read the model"),
    ):
        process.load(product, images, batch_size=2, threads=1)
