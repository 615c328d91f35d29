import ast
import fcntl
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ovit_deploy import engines
from ovit_deploy.engines import environments
from ovit_deploy.engines.base import Machine
from ovit_deploy.errors import EngineError

NEEDED = Machine("Linux", "x86_64", frozenset({"avx2"}))
SEEN_BY_THE_CHILD = ("__init__", "base", "worker", "cuda", "plan", *engines.ENGINES)


def test_onnxruntime_runs_in_our_own_python() -> None:
    assert environments.prepare("onnxruntime", print).command == (sys.executable,)


def test_a_cpu_without_avx2_is_refused() -> None:
    with pytest.raises(EngineError, match="deepsparse needs a CPU with avx2"):
        environments.require_machine("deepsparse", NEEDED, Machine("Linux", "x86_64", frozenset({"sse4_2", "avx"})))


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64"), ("Windows", "AMD64")])
def test_another_system_is_refused_by_name(system: str, machine: str) -> None:
    with pytest.raises(EngineError, match=f"deepsparse runs on Linux x86_64 only, this is {system} {machine}"):
        environments.require_machine("deepsparse", NEEDED, Machine(system, machine, frozenset({"avx2"})))


def test_a_machine_that_has_more_than_it_needs_will_do() -> None:
    environments.require_machine(
        "deepsparse", NEEDED, Machine("Linux", "x86_64", frozenset({"avx", "avx2", "avx512f"}))
    )


def test_cpu_flags_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512f\nbugs\t: none\n")
    assert environments.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2", "avx512f"}
    assert environments.cpu_flags(tmp_path / "missing") == frozenset()


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_python_that_does_not_start_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(tmp_path / "ours", "echo 3 13")
    _script(tmp_path / "python3.11", "exit 127")
    _script(tmp_path / "python3.10", "echo 3 10")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "ours"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environments.find_python() == str(tmp_path / "python3.10")


def test_no_fitting_python_is_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _script(tmp_path / "ours", "echo 3 13")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "ours"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"needs a Python from 3\.8 to 3\.11") as raised:
        environments.find_python()
    assert "python3.11" in raised.value.hint


def test_a_failed_installation_tells_pips_last_line_and_does_not_count_as_made(tmp_path: Path) -> None:
    folder, pins, told = tmp_path / "env", (str(tmp_path / "missing.whl"),), []
    with pytest.raises(EngineError, match=r"pip failed: .*missing\.whl"):
        environments.make(folder, replace(engines.ENGINES["deepsparse"], pins=pins), told.append)
    assert not environments.is_complete(folder, pins)
    assert "0.5 GB" in told[0]
    assert "non-commercial" in told[1]


def test_an_environment_with_other_pins_does_not_count(tmp_path: Path) -> None:
    (tmp_path / environments.MARKER).write_text('["deepsparse==1.7.0"]')
    assert environments.is_complete(tmp_path, ("deepsparse==1.7.0",))
    assert not environments.is_complete(tmp_path, ("deepsparse==1.8.0",))


def test_a_second_installation_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    told: list[str] = []
    with (tmp_path / "env.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def report(text: str) -> None:
            told.append(text)
            threading.Timer(0.1, fcntl.flock, (held, fcntl.LOCK_UN)).start()

        with environments.lock(tmp_path / "env", report):
            assert "waiting" in told[0]


@pytest.mark.parametrize("name", SEEN_BY_THE_CHILD)
def test_what_the_child_imports_is_python_3_8(name: str) -> None:
    text = (Path(engines.__file__).parent / f"{name}.py").read_text()
    ast.parse(text, feature_version=(3, 8))
    assert "from __future__ import annotations" in text


def test_a_cache_that_cannot_be_written_is_the_engines_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OVIT_DEPLOY_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(environments, "here", lambda: NEEDED)
    with pytest.raises(EngineError, match="cannot be made") as raised:
        environments.prepare("deepsparse", print)
    assert "OVIT_DEPLOY_CACHE" in raised.value.hint
