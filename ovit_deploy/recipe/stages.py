"""A document as stages: groups of modifiers as they are written, each with the variables it sees.

A stage is a top-level mapping that holds a ``...modifiers`` group. Its own variables shadow the recipe's. A recipe
without stages is one stage without a name. Epochs are absolute: a second stage says itself where it begins.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ovit_deploy.recipe.names import nearest
from ovit_deploy.recipe.yaml import Document, Path, Problem, Tagged

SECTIONS = ("model", "training")
WORDS = ("version", "dialect", "compat", "__metadata__")


@dataclass(frozen=True)
class Written:
    """A modifier as the file has it; ``untagged`` where it stands in a mapping, by its name."""

    tag: str
    values: Any
    path: Path
    untagged: bool = False


@dataclass(frozen=True)
class Stage:
    """Modifiers that share variables."""

    name: str
    variables: dict[str, Any] = field(default_factory=dict)
    written: tuple[Written, ...] = ()


def is_group(key: str) -> bool:
    """Whether a key holds modifiers."""
    return "modifiers" in key


def is_stage(value: Any) -> bool:
    """Whether a top-level value is a stage."""
    return isinstance(value, dict) and any(is_group(key) for key in value)


def split(document: Document) -> list[Stage]:
    """The stages of ``document``, in the file's order; what does not belong there becomes a problem of it."""
    data = document.data
    if isinstance(data, Tagged):
        return [Stage("", written=(Written(data.tag, data.values, ()),))]
    if not isinstance(data, dict):
        _tell(document, (), "a recipe is a mapping with at least one '...modifiers' list")
        return []
    shared = _variables(data)
    stages = {key: value for key, value in data.items() if not is_group(key) and is_stage(value)}
    plain = tuple(_written({k: v for k, v in data.items() if k not in stages}, (), document))
    if not stages:
        return [Stage("", shared, plain)]
    if plain:
        _tell(document, plain[0].path, "modifiers beside stages: put them into a stage, too")
    return [
        Stage(name, shared | _variables(values), tuple(_written(values, (name,), document)))
        for name, values in stages.items()
    ]


def _variables(mapping: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in mapping.items() if not isinstance(v, dict | Tagged) and not is_group(k)}


def _written(mapping: dict[str, Any], path: Path, document: Document) -> Iterator[Written]:
    for key, value in mapping.items():
        here = (*path, key)
        if isinstance(value, Tagged):
            yield Written(value.tag, value.values, here)
        elif is_group(key):
            yield from _group(key, value, here, document)
        elif isinstance(value, dict) and key not in WORDS and (path or key not in SECTIONS):
            _tell(document, here, f"unknown section {key!r}{nearest(key, SECTIONS)}")


def _group(key: str, items: Any, path: Path, document: Document) -> Iterator[Written]:
    if isinstance(items, dict):
        for name, values in items.items():
            yield Written(name, values, (*path, name), untagged=True)
    elif not isinstance(items, list):
        _tell(document, path, f"{key!r} must be a list of modifiers, each '- !NameModifier'")
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, Tagged):
            yield Written(item.tag, item.values, (*path, index))
        else:
            _tell(document, (*path, index), "not a modifier: start it with a tag such as '- !EpochRangeModifier'")


def _tell(document: Document, path: Path, message: str) -> None:
    document.problems.append(Problem(document.place(path), message))
