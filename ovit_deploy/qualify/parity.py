"""An exported file on an engine, beside PyTorch: the same logits, all operators, and how fast."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from ovit_deploy.bench import graph
from ovit_deploy.bench.latency import Settings, measure_latency
from ovit_deploy.bench.source import from_file
from ovit_deploy.bench.subject import prepare
from ovit_deploy.engines import ENGINES, environments
from ovit_deploy.engines.process import EngineProcess
from ovit_deploy.errors import EngineError
from ovit_deploy.export.deployment import ExportReport
from ovit_deploy.export.verify import compare
from ovit_deploy.qualify.task import Precision

MAX_DIFFERENCE = 1e-2  # of a logit in FP32, as bench allows
MIN_COSINE = 0.99  # of the logits of an image in INT8, averaged over images
# Logits of a network that has hardly learnt are near each other: rounding counts for more than in a trained one.
BOUNDS = {"min_cosine": MIN_COSINE, "min_agreement": 0.0}
TIMEOUT_S = 300.0
TIMED_S = 5.0  # of each file on each engine, dense and sparse in turns
PROFILES: dict[Precision, dict[str, str]] = {
    "fp32": {"onnxruntime": "deepsparse", "openvino": "deepsparse", "deepsparse": "deepsparse"},
    "int8": {"onnxruntime": "onnxruntime_int8", "openvino": "onnxruntime_int8", "deepsparse": "deepsparse_int8"},
}


@dataclass(frozen=True)
class Found:
    """How near an engine comes to PyTorch, and the fraction of operators that it runs outside of its fast runtime."""

    parity: dict[str, float]
    slow: float = 0.0


def profiles_of(engines: Sequence[str], precision: Precision) -> dict[str, list[str]]:
    """The engines by the profile of the file that they read."""
    found: dict[str, list[str]] = {}
    for engine in engines:
        found.setdefault(PROFILES[precision][engine], []).append(engine)
    return found


def with_pytorch(engine: str, precision: Precision, report: ExportReport, images: Tensor) -> Found:
    """The engine's logits of ``images`` beside PyTorch's.

    Raises:
        EngineError: It refuses the file, dies, or computes something else.
    """
    if engine == "onnxruntime":  # the export was proven there
        checked = report.card["verification"]
        return Found({key: checked[key] for key in ("max_abs_difference", "cosine")})
    if refused := graph.refusal(onnx.load(report.file), engine, ENGINES[engine]):
        raise refused
    wanted = _pytorch(report)
    answers, about = _run(engine, report.file, images[: len(wanted)].numpy())
    found = compare(answers, wanted)
    if precision == "fp32" and not found.max_abs_difference <= MAX_DIFFERENCE:
        raise EngineError(f"{engine}: logits differ from PyTorch's by {found.max_abs_difference:.2g}")
    if precision == "int8" and not found.cosine >= MIN_COSINE:
        raise EngineError(f"{engine}: logits and PyTorch's have a cosine of {found.cosine:.4f}")
    near = {"max_abs_difference": found.max_abs_difference, "cosine": found.cosine}
    return Found(near, slow=1 - about.get("supported_operators", 1.0))


def _pytorch(report: ExportReport) -> Tensor:
    files = sorted((report.folder / "sample-outputs").glob("*.npz"))
    return torch.stack([torch.from_numpy(np.load(file)["logits"]) for file in files])


def _run(engine: str, file: Path, images: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    environment = environments.prepare(engine, lambda text: None)
    with TemporaryDirectory(prefix="ovit-qualify-") as folder:
        given, answers = Path(folder) / "images.npy", Path(folder) / "logits.npy"
        np.save(given, images)
        with EngineProcess(engine, environment, timeout_s=TIMEOUT_S) as process:
            loaded = process.load(file, given, batch_size=1, threads=1)
            process.infer(given, answers)
        return np.load(answers), loaded.about


def speed_ups(engines: Sequence[str], report: ExportReport, folder: Path) -> dict[str, dict[str, Any]]:
    """By engine: how many times faster the file is than its dense twin, with interval and verdict.

    Raises:
        EngineError: One of them failed.
    """
    folder.mkdir()
    subject = prepare(from_file(report.file), batch_size=1, seed=0, folder=folder)
    rows = measure_latency(subject, Settings(tuple(engines), duration_s=TIMED_S, timeout_s=TIMEOUT_S))
    for row in rows:
        if row.error:
            raise EngineError(row.error, row.hint)
    return {row.engine: asdict(row.vs_dense) for row in rows if row.vs_dense}
