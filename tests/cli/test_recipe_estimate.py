import json

import pytest

from ovit_deploy.cli import main
from ovit_deploy.models import EMBEDDED


def test_what_a_run_takes_is_measured_once_and_told_again(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVIT_DEPLOY_CACHE", str(tmp_path / "cache"))
    main_ends_with(0, "recipe", "plan", "oneshot_magnitude", "--measure", "--json")
    first = json.loads(capsys.readouterr().out)
    parts = {part["name"]: part["count"] for part in first["estimate"]["parts"]}
    assert parts == {"start of the program": 1, "set up": 1, "pruning by GlobalMagnitude": 1, "test": 2}
    assert 1e8 < first["estimate"]["peak_memory_bytes"] < 1e10
    assert 0 < first["flops"]["sparse"] < first["flops"]["dense"]
    size = first["pruned"]
    assert size["sparse_bytes"] < size["dense_bytes"] == pytest.approx(7.2e6, rel=0.05)
    main_ends_with(0, "recipe", "plan", "oneshot_magnitude", "--checkpoint", str(EMBEDDED))
    told = capsys.readouterr().out
    assert "of memory (measured" in told
    assert "GFLOPs an image" in told
    assert len(list((tmp_path / "cache" / "rehearsals").iterdir())) == 1


def main_ends_with(code: int, *arguments: str) -> None:
    try:
        main(list(arguments))
    except SystemExit as ended:
        assert (ended.code or 0) == code
