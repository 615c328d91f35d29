"""What goes wrong with one engine costs its own rows only: real processes, really broken."""

import signal
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from ovit_deploy.bench.latency import Settings, Watch, measure_latency
from ovit_deploy.bench.results import Row
from ovit_deploy.bench.source import Source
from ovit_deploy.bench.subject import Subject, prepare
from ovit_deploy.engines import environments
from ovit_deploy.engines.process import EngineProcess
from ovit_deploy.errors import EngineError


@pytest.fixture
def subject(sparse: Source, tmp_path: Path) -> Subject:
    return prepare(sparse, batch_size=2, seed=0, folder=tmp_path)


def measured_with(subject: Subject, number: int, *, timeout_s: float = 60) -> list[Row]:
    """Two contestants; the first one's process gets a signal in the second round."""

    def hit_one(done: int, total: int) -> None:
        if done == 2:
            psutil.Process().children()[0].send_signal(number)

    settings = Settings(("onnxruntime",), iterations=6, timeout_s=timeout_s)
    return measure_latency(subject, settings, Watch(on_round=hit_one))


def require_one_lost(rows: list[Row], reason: str) -> None:
    lost, other = rows
    assert reason in (lost.error or "")
    assert lost.latency is None
    assert other.error is None
    assert other.latency
    assert other.latency.num_runs == 6


def test_a_killed_process_costs_its_row(subject: Subject) -> None:
    require_one_lost(measured_with(subject, signal.SIGKILL), "onnxruntime died (SIGKILL) running")


def test_a_process_that_hangs_costs_its_row_after_the_timeout(subject: Subject) -> None:
    require_one_lost(measured_with(subject, signal.SIGSTOP, timeout_s=5), "gave no answer within 5 s running")
    assert psutil.Process().children() == []


def test_a_truncated_file_costs_its_row(subject: Subject) -> None:
    whole = subject.variants[0].path.read_bytes()
    subject.variants[0].path.write_bytes(whole[:2000])
    rows = measure_latency(subject, Settings(("onnxruntime",), iterations=6, timeout_s=60))
    require_one_lost(rows, "not an ONNX model")


@pytest.fixture
def bare(tmp_path: Path) -> environments.Environment:
    """A Python that has numpy and nothing else."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in ("numpy", "numpy.libs"):
        folder = Path(np.__file__).parents[1] / name
        if folder.exists():
            (packages / name).symlink_to(folder)
    return environments.Environment((sys.executable, "-S"), {"PYTHONPATH": str(packages)})


def test_a_missing_library_costs_its_row(
    subject: Subject, bare: environments.Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = environments.prepare
    monkeypatch.setattr(
        environments, "prepare", lambda name, report: bare if name == "openvino" else prepared(name, report)
    )
    rows = measure_latency(subject, Settings(("openvino", "onnxruntime"), iterations=6, timeout_s=60))
    for lost, other in zip(rows[:2], rows[2:], strict=True):
        require_one_lost([lost, other], "openvino cannot be imported: No module named")


def test_a_missing_library_is_an_error_that_names_the_remedy(tmp_path: Path, bare: environments.Environment) -> None:
    np.save(tmp_path / "images.npy", np.zeros((2, 3), np.float32))
    for engine, remedy in (("openvino", "ovit-deploy[openvino]"), ("onnxruntime", "pip install onnxruntime")):
        with EngineProcess(engine, bare, timeout_s=60) as process, pytest.raises(EngineError) as raised:
            process.load(tmp_path / "model.onnx", tmp_path / "images.npy", batch_size=2, threads=1)
        assert f"{engine} cannot be imported: No module named" in raised.value.message
        assert remedy in raised.value.hint
