"""One small model of each of twelve families, from weights to ONNX Runtime and OpenVINO: minutes, run by .ci/run."""

import pytest
from family_cases import SMALL

from ovit_deploy.qualify.stages import qualify
from ovit_deploy.qualify.task import Settings

SETTINGS = Settings(engines=("onnxruntime", "openvino"), img_size=64, num_grads=16, num_steps=4, num_images=4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of timm and torch, as in the command's child
@pytest.mark.parametrize("name", SMALL)
def test_a_model_goes_from_weights_to_engines(name: str, tmp_path) -> None:
    row = qualify(name, SETTINGS, tmp_path, SMALL[name])
    assert row.failures == {}
    assert row.sparsity == pytest.approx(0.75, abs=1e-4)
    assert row.parity.keys() == {f"{engine} {kind}" for engine in SETTINGS.engines for kind in ("fp32", "int8")}
