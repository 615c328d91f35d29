from pathlib import Path

import numpy as np
import pytest

from ovit_deploy.engines import ENGINES, environments
from ovit_deploy.engines.deepsparse import require_old_numpy
from ovit_deploy.engines.process import EngineProcess
from ovit_deploy.errors import EngineError

PINS = ENGINES["deepsparse"].pins
installed = pytest.mark.skipif(
    not environments.is_complete(environments.location("deepsparse"), PINS),
    reason="DeepSparse is not installed; ovit-deploy bench --engine deepsparse installs it",
)


def test_numpy_2_is_refused_because_it_gives_garbage() -> None:
    require_old_numpy("1.26.4")
    with pytest.raises(EngineError, match=r"garbage with numpy 2\.1\.0"):
        require_old_numpy("2.1.0")


@installed
def test_it_agrees_with_onnxruntime_in_its_own_environment(product: Path, images: Path) -> None:
    logits = {}
    for engine in ("onnxruntime", "deepsparse"):
        with EngineProcess(engine, environments.prepare(engine, print), timeout_s=120) as process:
            about = process.load(product, images, batch_size=2, threads=1).about
            process.infer(images, images.with_name(f"{engine}.npy"))
        logits[engine] = np.load(images.with_name(f"{engine}.npy"))
    assert about["version"].startswith("1.8.0")
    assert about["numpy"].startswith("1.")
    np.testing.assert_allclose(logits["deepsparse"], logits["onnxruntime"], atol=1e-3)


@installed
def test_a_corrupt_file_is_an_error_with_its_reason(tmp_path: Path, images: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    environment = environments.prepare("deepsparse", print)
    with (
        EngineProcess("deepsparse", environment, timeout_s=120) as process,
        pytest.raises(EngineError, match=r"deepsparse failed loading broken\.onnx: .*Protobuf parsing failed"),
    ):
        process.load(tmp_path / "broken.onnx", images, batch_size=2, threads=1)


@pytest.mark.slow
def test_its_environment_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVIT_DEPLOY_CACHE", str(tmp_path))
    told: list[str] = []
    first = environments.prepare("deepsparse", told.append)
    assert len(told) == 2
    assert environments.prepare("deepsparse", told.append) == first
    assert len(told) == 2
