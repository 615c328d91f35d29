"""One small model of each of twelve families, from weights to ONNX Runtime and OpenVINO: minutes, run by .ci/run."""

import pytest
from family_cases import SMALL

from ovit_deploy.qualify.stages import qualify
from ovit_deploy.qualify.task import Settings

SETTINGS = Settings(engines=("onnxruntime", "openvino"), img_size=64, num_grads=16, num_steps=4, num_images=4)

# Seen on a CPU without VNNI: OpenVINO's INT8 logits of random weights have a cosine of 0.977 (XCiT) and 0.990
# (MobileViT) with PyTorch's, where 0.99 is asked. ONNX Runtime's agree on the same files.
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
