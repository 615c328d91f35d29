"""``ovit-deploy explain`` as a user types it, on a real engine."""

import json

import pytest

from ovit_deploy.bench.latency import Watch
from ovit_deploy.cli import app
from ovit_deploy.engines import inventory
from ovit_deploy.errors import EngineError, ModelError, OvitError
from ovit_deploy.explain.session import _read

ARGUMENTS = ("--engine", "onnxruntime", "--duration", "0.02")


@pytest.mark.slow
def test_it_predicts_tells_why_checks_itself_and_remembers(explain, capsys, tmp_path) -> None:
    explain(*ARGUMENTS, "--quick", "--verify", "--output", str(tmp_path / "first.json"))
    told = capsys.readouterr()
    assert "fp32 75 % zeros" in told.out
    assert "zeros cannot touch" in told.out
    assert "whole model, fp32 dense:" in told.out
    first = json.loads((tmp_path / "first.json").read_text())
    assert first["dense"]["ms"] > 0
    assert len(first["checks"]) == 2
    assert len(list((tmp_path / "cache" / "latency").glob("*.json"))) == 1

    explain(*ARGUMENTS, "--quick", "--verify", "--json")
    told = capsys.readouterr()
    assert "7 pieces from the cache" in told.err
    again = json.loads(told.out)
    assert again["dense"] == first["dense"]
    assert again["checks"] == first["checks"]


@pytest.mark.skipif(not inventory.status("ovit").present, reason="the engine is not compiled: no C++17 compiler")
def test_an_engine_that_runs_whole_blocks_only_is_predicted_all_the_same(explain, capsys, tmp_path) -> None:
    explain("--engine", "ovit", "--duration", "0.02", "--quick", "--verify", "--output", str(tmp_path / "told.json"))
    assert "ovit runs whole blocks only" in capsys.readouterr().out
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["shares"] is None
    assert told["sparse"]["ms"] > 0
    assert [check["form"] for check in told["checks"]] == ["fp32 dense", "fp32 75 % zeros"]


def test_a_damaged_file_of_the_cache_is_told_of_and_not_used(tmp_path) -> None:
    told: list[str] = []
    key = {"model": "abc"}
    path = tmp_path / "session.json"
    path.write_text(json.dumps({"key": key, "load": 0.5, "rounds_ms": {"a": [1.0]}}))
    assert _read(path, key, Watch(told.append))["rounds_ms"] == {"a": [1.0]}
    path.write_text(path.read_text()[:30])
    assert _read(path, key, Watch(told.append)) is None
    assert told[-1].endswith("damaged, measured again")


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        (("--engine", "tensorflow"), EngineError, "no engine 'tensorflow'"),
        (("--engine", "pytorch", "--quick"), EngineError, "runs checkpoints"),
        (("--pattern", "2:4"), OvitError, "half of its weights"),
    ],
)
def test_what_cannot_be_predicted_is_refused_with_its_reason(explain, arguments, error, told) -> None:
    with pytest.raises(error, match=told):
        explain(*arguments)


def test_a_model_without_blocks_is_refused(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no blocks of"):
        app(["explain", "resnet18", "--engine", "onnxruntime"], exit_on_error=False, result_action="return_value")
