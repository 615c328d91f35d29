"""``ovit-deploy evaluate --engine``: top-1 of an exported file in engines, and not of the model in PyTorch."""

import json as json_format
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovit_deploy.cli import common, render
from ovit_deploy.cli.bench import chosen_engines
from ovit_deploy.engines.selection import Selection
from ovit_deploy.errors import DataError, EngineError, ModelError, OvitError

if TYPE_CHECKING:
    import numpy as np

    from ovit_deploy.bench.source import Source
    from ovit_deploy.data import ImageData
    from ovit_deploy.finetune.evaluate import Accuracy

BATCH_SIZE = 32


@dataclass(frozen=True)
class Limits:
    """Threads of an engine, and seconds that one of its steps may take."""

    threads: int
    timeout_s: float


def evaluate_export(
    engines: tuple[str, ...], run: str | None, model: str | None, data: str | None, limits: Limits, *, json: bool
) -> None:
    """Top-1 of an export on all test images, in every engine; one that fails is a row that says so.

    Args:
        engines: as the command line has them.
        run: whose export; by default the newest.
        model: an ONNX file of an export instead.
        data: the test images; by default those of the run.
        limits: threads and time.
        json: print JSON instead of a table.

    Raises:
        OvitError: there is no such export, the images do not fit it, or an engine failed.
    """
    from ovit_deploy.bench import source
    from ovit_deploy.data import load_data

    selections = [_selection(name) for name in chosen_engines(engines, model)]
    export = source.from_file(Path(model)) if model else source.from_run(run)
    card = _card(export.files[0])
    images = load_data(data or _data_of(export.home))
    if tuple(card["classes"]) != images.classes:
        raise DataError(f"{images.name} has other classes than the model", "give --data with the model's classes")
    rows: dict[str, Accuracy | OvitError] = {}
    for selection in selections:
        render.note(f"{selection}: {len(images.test)} test images")  # pyrefly: ignore[bad-argument-type]
        try:
            rows[str(selection)] = _measure(selection, export, card, images, limits)
        except OvitError as error:
            rows[str(selection)] = error
    _show(rows, export.files[0], images.name, json=json)
    failed = [error for error in rows.values() if isinstance(error, OvitError)]
    if failed:
        raise EngineError("\n  ".join(error.message for error in failed), failed[0].hint)


def _selection(name: str) -> Selection:
    try:
        return Selection.parse(name)
    except ValueError as error:
        raise OvitError(f"--engine {name}: {error}", "ovit-deploy engines lists engines and options") from None


def _card(file: Path) -> dict[str, Any]:
    """What the export says of itself.

    Raises:
        ModelError: there is nothing beside the file that says how its images are made.
    """
    try:
        return json_format.loads((file.parent / "model.json").read_text())
    except (OSError, ValueError) as error:
        reason = "no whole model.json beside it, which says how images are made for it"
        raise ModelError(f"{file}: {reason}", "give what ovit-deploy export wrote") from error


def _data_of(home: Path) -> str | None:
    """The images of the run that an export belongs to, as they were asked for."""
    facts = home / "run.json"
    return json_format.loads(facts.read_text()).get("data_source") if facts.is_file() else None


def _measure(
    selection: Selection, export: "Source", card: dict[str, Any], images: "ImageData", limits: Limits
) -> "Accuracy":
    from ovit_deploy.bench import graph
    from ovit_deploy.engines import environments
    from ovit_deploy.engines.accuracy import top1
    from ovit_deploy.engines.process import EngineProcess
    from ovit_deploy.finetune.evaluate import Accuracy

    traits, file = selection.traits, export.files[0]
    if traits.reads == "checkpoint":
        if export.checkpoints[0] is None:
            raise EngineError(f"{selection} runs checkpoints, and {file} has none beside it", "give --run")
        file = export.checkpoints[0]
    elif refused := graph.refusal(graph.load(file), selection.engine, traits):
        raise refused
    fixed = card["input"]["batch"]
    batch_size = fixed if isinstance(fixed, int) else BATCH_SIZE
    environment = environments.prepare(selection.engine, render.note)
    with EngineProcess(str(selection), environment, timeout_s=limits.timeout_s) as process:
        batches = _batches(images, card["preprocessing"])
        return Accuracy(*top1(process, file, batches, batch_size=batch_size, threads=limits.threads))


def _batches(images: "ImageData", preprocessing: dict[str, Any]) -> Iterator[tuple["np.ndarray", "np.ndarray"]]:
    """Test images and their classes, as the model wants them."""
    from ovit_deploy.data import Preprocessing, eval_loader

    wanted = Preprocessing.from_dict(preprocessing)
    for batch, labels in eval_loader(images.test, wanted, batch_size=8 * BATCH_SIZE):
        yield batch.numpy(), labels.numpy()


def _show(rows: "dict[str, Accuracy | OvitError]", file: Path, data: str, *, json: bool) -> None:
    if json:
        told = {
            name: {"error": row.message} if isinstance(row, OvitError) else row.as_dict() for name, row in rows.items()
        }
        render.as_json({"model": str(file), "data": data, "engines": told})
        return
    cells = [
        (name, *(("failed", "", "") if isinstance(row, OvitError) else common.accuracy_cells(row.as_dict())))
        for name, row in rows.items()
    ]
    render.table(f"{file} on {data}", ("engine", "top-1", "95 % interval", "test images"), cells)
