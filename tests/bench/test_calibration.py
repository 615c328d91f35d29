from pathlib import Path

import pytest

from ovit_deploy.bench import own_tool
from ovit_deploy.bench.calibration import calibrate, conclude
from ovit_deploy.bench.latency import Settings, Watch
from ovit_deploy.bench.source import Source
from ovit_deploy.bench.subject import Subject, prepare
from ovit_deploy.bench.verdict import SpeedUp
from ovit_deploy.engines import ENGINES, environments


@pytest.fixture
def subject(sparse: Source, tmp_path: Path) -> Subject:
    return prepare(sparse, batch_size=2, seed=0, folder=tmp_path)


def test_a_large_planted_slow_down_of_a_real_engine_is_found(subject: Subject) -> None:
    settings = Settings(("onnxruntime",), iterations=60, timeout_s=60)
    found = calibrate(subject, "onnxruntime", settings, Watch(), runs=1, planted=20.0)
    assert [one.verdict for one in found.slowed] == ["slower"]
    assert found.found_rate == 1
    assert found.slowed[0].factor < 0.2
    assert len(found.same) == 1


def test_rates_are_those_of_the_verdicts() -> None:
    same = [SpeedUp(1.0, 0.98, 1.02, "inconclusive")] * 18 + [SpeedUp(1.1, 1.08, 1.12, "faster")] * 2
    slow = [SpeedUp(0.95, 0.93, 0.97, "slower")] * 3 + [SpeedUp(0.97, 0.93, 1.01, "inconclusive")]
    found = conclude(same, 0.05, slow, [0.01, -0.01])
    assert (found.false_rate, found.found_rate) == (0.1, 0.75)
    assert found.measured == pytest.approx(1 / 0.95 - 1)
    assert found.surprise == pytest.approx(0.2642, abs=1e-4)  # 1 - 0.95^20 - 20 x 0.05 x 0.95^19
    assert found.detectable > 0.02
    assert found.start_spread == pytest.approx(0.01)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "deepsparse"])
def test_each_engines_own_tool_tells_a_figure_for_the_same_file(subject: Subject, tmp_path: Path, engine: str) -> None:
    pins = ENGINES[engine].pins
    if pins and not environments.is_complete(environments.location(engine), pins):
        pytest.skip("DeepSparse is not installed; ovit-deploy engines install deepsparse")
    settings = Settings((engine,), duration_s=0.5, timeout_s=120)
    one = own_tool.compare_all(subject, settings, Watch(), folder=tmp_path, rounds=1)[0]
    assert one.error == ""
    assert one.tool_ms > 0
    assert one.our_ms > 0
    assert one.ratios == [one.ratio]


def test_an_engine_without_a_tool_and_a_broken_file_cost_their_own_rows(subject: Subject, tmp_path: Path) -> None:
    subject.variants[0].path.write_bytes(b"not a model")
    settings = Settings(("pytorch", "onnxruntime"), duration_s=0.5, timeout_s=60)
    found = own_tool.compare_all(subject, settings, Watch(), folder=tmp_path, rounds=1)
    assert "no tool of its own" in found[0].error
    assert "not an ONNX model" in found[1].error
