"""``ovit-deploy models``: the families of models, and what would be pruned in one model."""

import math
from dataclasses import asdict
from typing import Any

from ovit_deploy import families
from ovit_deploy import models as building
from ovit_deploy.cli import common, render
from ovit_deploy.families import FAMILIES, TRANSFORMERS, Family

KNOWN = (*FAMILIES, TRANSFORMERS)
COLUMNS = ("family", "Fisher block", "recipe", "timm names")


def models(model: str | None = None, /, *, json: bool = False) -> None:
    """List the families of models that are known, or say what would be pruned in one model.

    Of one model: its targets, parameters, and the input that it wants. Nothing is trained or fetched.

    Example: ovit-deploy models swin_tiny_patch4_window7_224

    Args:
        model: A timm model name, or hf: and a folder that transformers saved.
        json: Print the result as JSON.
    """
    if model is not None:
        _show(model, json=json)
    elif json:
        render.as_json([asdict(family) for family in KNOWN])
    else:
        rows = [_row(family) for family in KNOWN]
        render.table("families", COLUMNS, rows)
        render.line()
        for family in KNOWN:
            for selector in family.targets:
                render.line(f"{family.name}: {selector}")
        render.line("any other model: all matrices and convolutions but those of the stem and the head")
        render.next_command(f"ovit-deploy models {FAMILIES[0].smallest}")


def _row(family: Family) -> tuple[str, ...]:
    names = ", ".join(pattern for pattern in family.models if not pattern.startswith("!"))
    return family.name, str(family.fisher_block_size), family.recipe, names


def _show(model: str, *, json: bool) -> None:
    from ovit_deploy.data import Preprocessing
    from ovit_deploy.selectors import match

    spec = building.choose(model, checkpoint=None, pretrained=False).spec
    network, family = building.outline(spec), families.family_of(spec.name)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    targets = families.targets_of(spec.name, shapes)
    names = match(targets, shapes)
    total, chosen = (sum(math.prod(shapes[name]) for name in some) for some in (shapes, names))
    about: dict[str, Any] = {
        "model": model,
        "family": family.name if family else None,
        "targets": targets,
        "tensors": len(names),
        "parameters": total,
        "prunable": chosen,
        "fisher_block_size": family.fisher_block_size if family else None,
        "recipe": family.recipe if family else None,
        "preprocessing": Preprocessing.of(network).as_dict(),
    }
    if json:
        render.as_json(about)
        return
    columns = ("tensors", "count", "shape", "weights each")
    render.table(f"{model}: what is pruned by default", columns, common.alike(names, shapes))
    render.line(f"family: {about['family'] or 'none that is known: all but stem and head'}")
    render.line(f"{chosen:,} of {total:,} weights are targets ({chosen / total:.1%})")
    render.line("input: " + _input(about["preprocessing"]))
    if family:
        render.line(f"Fisher blocks of {family.fisher_block_size}, recipe {family.recipe}")
        render.next_command(f"ovit-deploy prune --recipe {family.recipe} --model {model} --data images/")


def _input(wanted: dict[str, Any]) -> str:
    mean, std = (", ".join(f"{value:g}" for value in wanted[key]) for key in ("mean", "std"))
    size = " x ".join(map(str, wanted["input_size"]))
    return f"{size}, {wanted['interpolation']}, crop {wanted['crop_pct']:g}, mean {mean}, std {std}"
