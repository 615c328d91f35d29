import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ovit_deploy.engines import environments
from ovit_deploy.engines.process import EngineProcess
from ovit_deploy.errors import EngineError


@pytest.fixture
def process() -> Iterator[EngineProcess]:
    environment = environments.prepare("onnxruntime", print)
    with EngineProcess("onnxruntime", environment, timeout_s=60) as started:
        yield started


def test_the_child_computes_what_the_graph_says(process: EngineProcess, product: Path, images: Path) -> None:
    process.load(product, images, batch_size=2, threads=1)
    process.infer(images, images.with_name("logits.npy"))
    weight = numpy_helper.to_array(onnx.load(product).graph.initializer[0])
    np.testing.assert_allclose(np.load(images.with_name("logits.npy")), np.load(images) @ weight, rtol=1e-5)


def test_a_cold_start_tells_its_time_and_what_ran(process: EngineProcess, product: Path, images: Path) -> None:
    loaded = process.load(product, images, batch_size=2, threads=1)
    assert loaded.load_s > 0
    assert loaded.first_ms > 0
    assert loaded.about["providers"] == ["CPUExecutionProvider"]


def test_as_many_latencies_come_back_as_runs_were_asked_for(
    process: EngineProcess, product: Path, images: Path
) -> None:
    process.load(product, images, batch_size=2, threads=1)
    latencies_ms = process.run(7)
    assert len(latencies_ms) == 7
    assert min(latencies_ms) > 0


def test_peak_memory_is_the_childs_own(product: Path, images: Path) -> None:
    ballast = np.ones(500 * 2**17)  # 500 MiB in this process
    with EngineProcess("onnxruntime", environments.prepare("onnxruntime", print)) as process:
        process.load(product, images, batch_size=2, threads=1)
    assert ballast.all()
    assert 10 < process.peak_mib < 400


def test_a_killed_child_is_an_error_that_names_the_signal(process: EngineProcess, product: Path, images: Path) -> None:
    process.load(product, images, batch_size=2, threads=1)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match=r"onnxruntime died \(SIGKILL\) running 3 times") as raised:
        process.run(3)
    assert "memory" in raised.value.hint


def test_a_child_that_hangs_is_an_error_and_ends(process: EngineProcess, product: Path, images: Path) -> None:
    process.load(product, images, batch_size=2, threads=1)
    os.kill(process.pid, signal.SIGSTOP)
    process.timeout_s = 0.3
    with pytest.raises(EngineError, match="no answer within 0.3 s running 1 times"):
        process.run(1)
    process.close()
    assert not Path(f"/proc/{process.pid}").exists()


def test_a_corrupt_file_is_an_error_with_the_engines_reason(
    process: EngineProcess, tmp_path: Path, images: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(EngineError, match=r"onnxruntime failed loading broken.onnx: .*Protobuf parsing failed"):
        process.load(tmp_path / "broken.onnx", images, batch_size=2, threads=1)


def test_the_last_words_of_a_dying_child_are_told(product: Path, images: Path) -> None:
    environment = environments.Environment((sys.executable, "-c", "import sys; sys.exit('no runtime here')"))
    with (
        EngineProcess("onnxruntime", environment) as process,
        pytest.raises(EngineError, match=r"exit code 1.*no runtime here"),
    ):
        process.load(product, images, batch_size=2, threads=1)


def test_a_failed_assertion_is_told_instead_of_the_trace_after_it(product: Path, images: Path) -> None:
    trace = "Assertion at src/lib/a.cpp:327\\n\\nBacktrace:\\n 0# 0x7f\\n 1# 0x7e\\n 2# 0x7d\\nPlease email a copy"
    environment = environments.Environment((sys.executable, "-c", f"import sys; sys.exit('{trace}')"))
    with (
        EngineProcess("onnxruntime", environment) as process,
        pytest.raises(EngineError, match=r"exit code 1\) loading \S+: Assertion at src/lib/a.cpp:327$"),
    ):
        process.load(product, images, batch_size=2, threads=1)


def test_closing_twice_is_harmless(process: EngineProcess) -> None:
    process.close()
    process.close()


def test_what_a_library_prints_does_not_reach_the_answers() -> None:
    script = (
        "import os; from ovit_deploy.engines.worker import take_stdout; private = take_stdout();"
        "os.write(1, b'banner'); print('chatter'); private.write('answer'); private.flush()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "answer"
    assert "banner" in done.stderr


def test_a_python_that_is_not_there_is_an_error() -> None:
    with pytest.raises(EngineError, match="onnxruntime cannot be started: No such file or directory: /none/python"):
        EngineProcess("onnxruntime", environments.Environment(("/none/python",)))
