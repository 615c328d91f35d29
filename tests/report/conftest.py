"""Runs to report on: the committed files of a real one, laid out as a run's folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ovit_deploy import models

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "bench" / "results" / "zen4-2cores"
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Lays out ``runs/<name>`` with some of its facts and of every row of its benchmark replaced."""
    monkeypatch.chdir(tmp_path)

    def lay_out(name: str = "deit_75", *, row: dict[str, Any] | None = None, **facts: Any) -> Path:
        folder = Path("runs") / name
        folder.mkdir(parents=True)
        run = json.loads((COMMITTED / "deit_75_run.json").read_text())
        (folder / "run.json").write_text(json.dumps(run | facts))
        bench = json.loads((COMMITTED / "bench_deit_75.json").read_text())
        bench["rows"] = [old | (row or {}) for old in bench["rows"]]
        (folder / "bench.json").write_text(json.dumps(bench))
        shutil.copy(ROOT / "recipes" / "deit_75.yaml", folder / "recipe.yaml")
        shutil.copy(models.EMBEDDED, folder / "model.safetensors")
        (folder / "metrics.jsonl").write_text("".join(map(_epoch, range(1, 9))))
        return folder

    return lay_out


def _epoch(number: int) -> str:
    line = {"event": "epoch", "epoch": float(number), "step": 78 * number, "loss": 1 / number, "train_top1": 0.9}
    return json.dumps(line | {"sparsity": 0.5, "learning_rate": 1e-4, "seconds": 20.0}) + "\n"
