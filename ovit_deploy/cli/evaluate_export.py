"""``ovit-deploy evaluate --engine``: top-1 of an exported file in engines, and not of the model in PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovit_deploy.cli import common, render
from ovit_deploy.cli.bench import chosen_engines
from ovit_deploy.engines.selection import Selection
from ovit_deploy.errors import EngineError, OvitError

if TYPE_CHECKING:
    from ovit_deploy.accuracy import Accuracy
    from ovit_deploy.bench.labelled import Labelled
    from ovit_deploy.bench.source import Source

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
    from ovit_deploy.bench import labelled, source

    selections = [_selection(name) for name in chosen_engines(engines, model)]
    export = source.from_file(Path(model)) if model else source.from_run(run)
    images = labelled.of_export(export, data)
    rows: dict[str, Accuracy | OvitError] = {}
    for selection in selections:
        render.note(f"{selection}: {len(images)} test images")
        try:
            rows[str(selection)] = _measure(selection, export, images, limits)
        except OvitError as error:
            rows[str(selection)] = error
    _show(rows, export.files[0], images.images.name, json=json)
    failed = [error for error in rows.values() if isinstance(error, OvitError)]
    if failed:
        raise EngineError("\n  ".join(error.message for error in failed), failed[0].hint)


def _selection(name: str) -> Selection:
    try:
        return Selection.parse(name)
    except ValueError as error:
        raise OvitError(f"--engine {name}: {error}", "ovit-deploy engines lists engines and options") from None


def _measure(selection: Selection, export: "Source", images: "Labelled", limits: Limits) -> "Accuracy":
    from ovit_deploy.accuracy import Accuracy
    from ovit_deploy.bench import graph
    from ovit_deploy.engines import environments
    from ovit_deploy.engines.accuracy import top1
    from ovit_deploy.engines.process import EngineProcess

    traits, file = selection.traits, export.files[0]
    if traits.reads == "checkpoint":
        if export.checkpoints[0] is None:
            raise EngineError(f"{selection} runs checkpoints, and {file} has none beside it", "give --run")
        file = export.checkpoints[0]
    elif refused := graph.refusal(graph.load(file), selection.engine, traits):
        raise refused
    environment = environments.prepare(selection.engine, render.note)
    with EngineProcess(str(selection), environment, timeout_s=limits.timeout_s) as process:
        return Accuracy(
            *top1(process, file, images.batches(), batch_size=images.batch or BATCH_SIZE, threads=limits.threads)
        )


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
