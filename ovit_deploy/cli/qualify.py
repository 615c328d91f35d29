"""``ovit-deploy qualify``: do models go all the way, from weights to engines?"""

import json as jsons
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from ovit_deploy import checkpoint
from ovit_deploy.cli import render, typed
from ovit_deploy.cli.common import parse_bytes
from ovit_deploy.engines import inventory
from ovit_deploy.errors import OvitError
from ovit_deploy.families import FAMILIES

if TYPE_CHECKING:
    from ovit_deploy.qualify.task import Row, Settings


def qualify(
    model: tuple[str, ...] = (),
    /,
    *,
    families: bool = False,
    all: Path | None = None,  # noqa: A002 - the option's name
    img_size: Annotated[int | None, Parameter(validator=Number(gte=8))] = None,
    engine: tuple[str, ...] = (),
    num_grads: Annotated[int, Parameter(validator=Number(gte=1))] = 32,
    time: bool = False,
    timeout: Annotated[float, Parameter(validator=Number(gt=0))] = 1800,
    memory_limit: str = "8GB",
    again: bool = False,
    out: Path = Path("qualification"),
    json: bool = False,
) -> None:
    """Take models from weights to engines: prune one-shot to 75 %, finetune a few steps, export FP32 and INT8, compare.

    Weights are random where timm's are not in the cache, images are made up: this is about the way, not about accuracy.
    Each model has a process of its own. Finished rows are kept in OUT/rows.jsonl at once; the same command goes on
    where it was stopped. At the end stands OUT/results.json.

    Example: ovit-deploy qualify deit_tiny_patch16_224 --img-size 64

    Args:
        model: Timm model names.
        families: The smallest member of each family that ovit-deploy models lists.
        all: A file with a model name a line; what follows a # is a remark.
        img_size: Pixels, in models that take images of that size; the others keep their own.
        engine: Engines to compare with PyTorch: onnxruntime, openvino, deepsparse; may be given several times. By
            default those that are here.
        num_grads: Images whose gradients make the Fisher matrices.
        time: Measure the speed-up over the dense twin, too.
        timeout: Seconds for a model.
        memory_limit: What a model may take with all its processes.
        again: Do those once more that failed before.
        out: The folder of results.
        json: Print the results as JSON.
    """
    from ovit_deploy.qualify.child import Limits
    from ovit_deploy.qualify.child import qualify as in_a_child
    from ovit_deploy.qualify.journal import Journal
    from ovit_deploy.qualify.task import Settings

    names = _names(model, families=families, file=all)
    settings = Settings(_engines(engine), img_size, num_grads=num_grads, timing=time)
    memory = parse_bytes(memory_limit)
    assert memory is not None
    journal = Journal(out / "rows.jsonl", settings)
    for number, name in enumerate(names, 1):
        known = journal.rows.get(name)
        if known is None or (again and not known.qualifies):
            render.note(f"{number} of {len(names)}: {name}")
            journal.add(in_a_child(name, settings, Limits(timeout, memory)))
            render.note(f"  {_told(journal.rows[name])}")
    _show([journal.rows[name] for name in names], settings, out, json=json)


def _names(models: Sequence[str], *, families: bool, file: Path | None) -> list[str]:
    """The models that are meant, each once."""
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
    listed = [name for line in lines if (name := line.partition("#")[0].strip())]
    smallest = [family.smallest for family in FAMILIES] if families else []
    names = list(dict.fromkeys((*models, *smallest, *listed)))
    if not names:
        raise OvitError("no model to qualify", "give timm model names, --families, or --all FILE")
    return names


def _engines(given: tuple[str, ...]) -> tuple[str, ...]:
    """The engines that are meant; those that are not here are left out only where none was named."""
    from ovit_deploy.qualify.task import ENGINES

    unknown = [name for name in given if name not in ENGINES]
    if unknown:
        raise OvitError(f"--engine {unknown[0]}: not compared here", f"one of {', '.join(ENGINES)}")
    return tuple(dict.fromkeys(given)) or tuple(name for name in ENGINES if inventory.status(name).present)


def _told(row: "Row") -> str:
    from ovit_deploy.qualify.table import remarks

    assert row.seconds is not None
    return "; ".join((f"{row.seconds:.0f} s", "qualifies" if row.qualifies else "fails", *remarks(row)))


def _show(rows: "list[Row]", settings: "Settings", out: Path, *, json: bool) -> None:
    from ovit_deploy.qualify import table

    told: dict[str, Any] = {
        "format": 1,
        "kind": "qualification",
        "command": typed.command_line(),
        "settings": settings.as_dict(),
        "rows": [row.as_dict() for row in rows],
    }
    checkpoint.write(out / "results.json", jsons.dumps(told, indent=1) + "\n")
    if json:
        render.as_json(told)
    else:
        render.table("qualification", table.BRIEF, [table.brief(row) for row in rows])
        for row in rows:
            for remark in table.remarks(row):
                render.line(f"{row.model}: {remark}")
        render.line(table.summary(rows))
        render.line(f"wrote {out}/results.json")
    failed = [row.model for row in rows if not row.qualifies]
    if failed:
        raise OvitError(
            f"{', '.join(failed)}: not all the way",
            "the remarks say why; --again does these once more, the others stand",
        )
