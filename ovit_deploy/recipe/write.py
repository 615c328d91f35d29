"""`Recipe` -> YAML text that reads back as the same recipe: our own words, every expression computed."""

import json
from collections.abc import Iterable
from itertools import groupby, takewhile
from typing import Any

from ovit_deploy.recipe.declaration import Declaration, Modifier
from ovit_deploy.recipe.schema import Recipe


def write(recipe: Recipe, header: str = "") -> str:
    """The text of ``recipe``: a stage for each of its stages, under each a list of modifiers.

    Only keys that the recipe says itself are written, so that defaults stay defaults.
    """
    parts = [header, *_sections(recipe)]
    pairs = zip(recipe.stages or ("",) * len(recipe.modifiers), recipe.modifiers, strict=True)
    for stage, items in groupby(pairs, key=lambda pair: pair[0]):
        parts.append(_stage(stage, [modifier for _, modifier in items]))
    return "\n".join(part for part in parts if part)


def header_of(text: str) -> str:
    """The comment that a recipe's text begins with."""
    lines = takewhile(lambda line: line.startswith("#"), text.lstrip().splitlines(keepends=True))
    return "".join(lines)


def _sections(recipe: Recipe) -> Iterable[str]:
    if recipe.compat is not None:
        yield f"compat: {recipe.compat}\n"
    if recipe.metadata:
        yield f"__metadata__: {_flow(recipe.metadata)}\n"
    for name, section in (("model", recipe.model), ("training", recipe.training)):
        said = _said(section) if section is not None else {}
        if said:
            yield f"{name}:\n" + "".join(f"  {key}: {_flow(value)}\n" for key, value in said.items())


def _stage(name: str, modifiers: list[Modifier]) -> str:
    indent = "  " if name else ""
    lines = [f"{name if name.isidentifier() else _flow(name)}:"] if name else []
    lines.append(f"{indent}modifiers:")
    for modifier in modifiers:
        lines.append(f"{indent}  - !{type(modifier).__name__}")
        lines += [f"{indent}    {key}: {_flow(value)}" for key, value in _said(modifier).items()]
    return "\n".join(lines) + "\n"


def _said(part: Declaration) -> dict[str, Any]:
    return part.model_dump(mode="json", exclude_unset=True)


def _flow(value: Any) -> str:
    """A value on one line; JSON is YAML."""
    return json.dumps(value, ensure_ascii=False, default=str)
