"""A benchmark against an earlier one, by its function and by the command line."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovit_deploy.bench import against
from ovit_deploy.cli import main
from ovit_deploy.errors import OvitError

COMMITTED = Path(__file__).parents[2] / "bench" / "results" / "zen4-2cores" / "bench_deit_75.json"


def row(engine: str, median_ms: float, *, units: int = 12, noise: float = 0.01, seed: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    blocks = (median_ms * (1 + noise * draw.standard_normal((units, 20)))).tolist()
    named = {"model": "vit", "engine": engine, "weights": "dense", "batch_size": 1, "threads": 1}
    return named | {"latency": {"median_ms": float(np.median(blocks))}, "blocks_ms": blocks}


def result(*rows: dict[str, Any], **hardware: Any) -> dict[str, Any]:
    machine = {"cpu": "one", "instructions": ["avx2"], "usable_cores": 2, "packages": {"numpy": "2"}}
    return {"kind": "latency", "hardware": machine | hardware, "rows": list(rows)}


def test_a_real_result_against_itself_is_equal() -> None:
    document = against.load(COMMITTED)
    found = against.compare(document, document)
    assert [match.factor for match in found.matches] == [1.0] * 4
    assert not found.unmatched + found.machine + found.software + found.slower
    assert all(match.speed_up and match.speed_up.low < 1 < match.speed_up.high for match in found.matches)


@pytest.mark.parametrize(("factor", "verdict"), [(1.3, "slower"), (1 / 1.3, "faster"), (1.0, "equivalent")])
def test_a_planted_change_is_told(factor: float, verdict: str) -> None:
    then, now = result(row("ort", 10.0)), result(row("ort", 10.0 * factor, seed=1))
    (match,) = against.compare(now, then).matches
    assert match.speed_up
    assert match.speed_up.verdict == verdict
    assert match.factor == pytest.approx(1 / factor, rel=0.02)
    assert match.speed_up.low <= match.speed_up.factor <= match.speed_up.high


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    missed = 0
    for seed in range(120):
        draw = np.random.default_rng(seed)
        then, now = draw.lognormal(0, 0.1, (12, 1)), draw.lognormal(0, 0.1, (12, 1))
        found = against.unpaired(then.tolist(), now.tolist(), seed)
        missed += not found.low <= 1 <= found.high
    assert missed <= 13  # 6 expected


def test_without_single_runs_there_is_a_ratio_and_no_interval() -> None:
    then = row("ort", 10.0) | {"blocks_ms": []}
    found = against.compare(result(row("ort", 20.0)), result(then))
    assert found.matches[0].speed_up is None
    assert found.matches[0].factor == pytest.approx(0.5, rel=0.02)
    assert not found.slower


def test_blocks_of_several_processes_are_one_unit_a_process() -> None:
    nested = row("ort", 10.0)
    nested["blocks_ms"] = [nested["blocks_ms"][:6], nested["blocks_ms"][6:]]
    (match,) = against.compare(result(row("ort", 10.0)), result(nested)).matches
    assert match.speed_up
    assert match.speed_up.verdict == "inconclusive"  # two units


def test_who_has_no_counterpart_is_listed_with_the_reason() -> None:
    failed = row("died", 1.0) | {"latency": None, "error": "out of memory"}
    then = result(row("ort", 1.0), row("old", 1.0), row("died", 1.0))
    found = against.compare(result(row("ort", 1.0), row("new", 1.0), failed), then)
    assert [match.contestant["engine"] for match in found.matches] == ["ort"]
    assert {one.contestant["engine"]: one.why for one in found.unmatched} == {
        "died": "failed now: out of memory",
        "new": "not in the earlier result",
        "old": "not measured now",
    }


def test_another_machine_is_named_and_nothing_counts_as_slower() -> None:
    then = result(row("ort", 10.0), cpu="two", packages={"numpy": "1", "onnx": "3"})
    found = against.compare(result(row("ort", 20.0)), then)
    assert found.machine == ("cpu: two then, one now",)
    assert found.software == ("numpy: 1 then, 2 now", "onnx: 3 then, unknown now")
    assert found.matches[0].speed_up
    assert found.matches[0].speed_up.verdict == "slower"
    assert not found.slower


def test_a_result_without_a_scenario_is_a_single_stream() -> None:
    now = result(row("ort", 1.0) | {"scenario": "single_stream"}, row("ort", 1.0) | {"scenario": "offline"})
    found = against.compare(now, result(row("ort", 1.0)))
    assert [match.contestant["scenario"] for match in found.matches] == ["single_stream"]
    assert [one.contestant["scenario"] for one in found.unmatched] == ["offline"]


def test_other_work_on_the_machine_is_told() -> None:
    then, now = result(row("ort", 1.0), load_average=[0.2, 0, 0]), result(row("ort", 1.0), load_average=[5.7, 0, 0])
    assert against.compare(now, then).busy == ("load 5.7 on 2 cores now",)


@pytest.mark.parametrize(("content", "told"), [("{", "not JSON"), ('{"kind": "pruner", "rows": []}', "no latencies")])
def test_what_is_no_result_is_refused(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "then.json"
    path.write_text(content)
    with pytest.raises(OvitError, match=told):
        against.load(path)


def bench(*arguments: str) -> int | str | None:
    """The exit code of ``ovit-deploy bench``."""
    with pytest.raises(SystemExit) as left:
        main(["bench", *arguments])
    return left.value.code


def scaled(document: dict[str, Any], factor: float) -> dict[str, Any]:
    """The same result, as if the machine had been so many times slower then."""
    changed = copy.deepcopy(document)
    for each in changed["rows"]:
        each["blocks_ms"] = [[factor * run for run in block] for block in each["blocks_ms"]]
        each["latency"]["median_ms"] *= factor
    return changed


def test_the_command_tells_and_exits_with_4_when_slower(save, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    measured = ("--model", str(save()), "--iterations", "60")
    assert bench(*measured, "--output", "then.json") == 0
    then = json.loads(Path("then.json").read_text())
    Path("faster_then.json").write_text(json.dumps(scaled(then, 1e-3)))
    Path("slower_then.json").write_text(json.dumps(scaled(then, 1e3)))
    capsys.readouterr()
    assert bench(*measured, "--against", "slower_then.json") == 0
    assert "faster" in capsys.readouterr().out
    assert bench(*measured, "--against", "faster_then.json") == 4
    shown = capsys.readouterr()
    assert "slower than in faster_then.json" in shown.err
    written = json.loads(Path("bench.json").read_text())["against"]
    assert written["file"] == "faster_then.json"
    assert len(written["matches"]) == 2


def test_the_command_refuses_what_it_cannot_compare(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench("--suite", "pruner", "--against", str(COMMITTED)) == 1
    assert "only latencies are compared" in capsys.readouterr().err
    assert bench("--model", "none.onnx", "--against", "missing.json") == 1
    assert "--against missing.json: No such file" in capsys.readouterr().err
