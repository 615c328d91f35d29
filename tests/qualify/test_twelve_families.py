"""One small model of each of twelve families, from weights to ONNX Runtime and OpenVINO: minutes, run by .ci/run."""

import pytest
from family_cases import SMALL

from ovit_deploy.qualify.stages import qualify
from ovit_deploy.qualify.task import Settings

SETTINGS = Settings(engines=("onnxruntime", "openvino"), img_size=64, num_grads=16, num_steps=4, num_images=4)

# OpenVINO's INT8 logits of random weights, where a cosine of 0.99 with PyTorch's is asked: of the XCiT 0.977 on a CPU
# without VNNI (7 bits) and 0.978 on one with it (8 bits), so that VNNI is not why; of the MobileViT 0.990 without it.
# ONNX Runtime's are PyTorch's up to 3e-8 on the same file.
KNOWN = {"xcit_nano_12_p16_224": {"openvino int8"}, "mobilevitv2_050": {"openvino int8"}}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of timm and torch, as in the command's child
@pytest.mark.parametrize("name", SMALL)
def test_a_model_goes_from_weights_to_engines(name: str, tmp_path) -> None:
    row = qualify(name, SETTINGS, tmp_path, SMALL[name])
    assert row.failures.keys() <= KNOWN.get(name, set())
    assert row.sparsity == pytest.approx(0.75, abs=1e-4)
    wanted = {f"{engine} {kind}" for engine in SETTINGS.engines for kind in ("fp32", "int8")}
    assert row.parity.keys() | row.failures.keys() == wanted
