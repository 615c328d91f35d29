from pathlib import Path

import onnxruntime
import pytest

from ovit_deploy.engines import environments
from ovit_deploy.engines.process import EngineProcess
from ovit_deploy.errors import EngineError


@pytest.mark.parametrize(("option", "name"), [("cuda", "CUDA"), ("tensorrt", "Tensorrt")])
def test_a_provider_that_is_not_here_is_an_error_and_not_the_cpu(
    product: Path, images: Path, option: str, name: str
) -> None:
    if f"{name}ExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip(f"this ONNX Runtime has {name}")
    environment = environments.prepare("onnxruntime", print)
    with (
        EngineProcess(f"onnxruntime:provider={option}", environment, timeout_s=60) as process,
        pytest.raises(EngineError, match=f"no {name}ExecutionProvider") as raised,
    ):
        process.load(product, images, batch_size=2, threads=1)
    assert "onnxruntime-gpu" in raised.value.hint


def test_the_profiler_tells_every_node_with_its_type(product: Path, images: Path) -> None:
    with EngineProcess("onnxruntime", environments.prepare("onnxruntime", print), timeout_s=60) as process:
        process.load(product, images, batch_size=2, threads=1)
        (layer,) = process.profile(3)
    assert (layer["names"], layer["type"], layer["precision"]) == (["MatMul_0"], "MatMul", "float")
    assert layer["ms"] > 0
