import json
from pathlib import Path

import pytest

from ovit_deploy.bench import hardware, results
from ovit_deploy.errors import OvitError


def test_a_result_is_written_with_its_machine_and_read_back(tmp_path: Path) -> None:
    row = results.Row("vit", "onnxruntime", "dense", 0.0, 1, 1, error="died")
    results.write(tmp_path / "new" / "bench.json", results.document("latency", {"seed": 0}, hardware.describe(), [row]))
    found = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert found["rows"][0]["error"] == "died"
    assert found["hardware"]["usable_cores"] >= 1
    assert found["hardware"]["packages"]["onnxruntime"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["bench.json"]


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(OvitError, match="usable cores"):
        hardware.require_cores(100_000)
