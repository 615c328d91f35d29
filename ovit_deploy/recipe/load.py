"""A recipe file -> `Recipe`, or one error that names every problem as file:line:column."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe import expressions, yaml
from ovit_deploy.recipe.schema import MODIFIERS, ModelSection, Modifier, Recipe, Training
from ovit_deploy.recipe.yaml import Document, Problem, Tagged

_SECTIONS: dict[str, type[BaseModel]] = {"model": ModelSection, "training": Training}
_IGNORED = {"version", "__metadata__"}


def load_recipe(path: str | Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """The recipe in a file.

    Args:
        path: the YAML file.
        overrides: new values for the recipe's top-level variables, applied before anchors are expanded.

    Raises:
        RecipeError: every problem of the file, one ``file:line:column: message`` a line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text", "a recipe is a YAML file, see recipes/") from error
    return parse_recipe(text, source=str(path), overrides=overrides)


def parse_recipe(text: str, *, source: str = "recipe", overrides: Mapping[str, str] | None = None) -> Recipe:
    """The recipe in ``text``; ``source`` names it in errors. Raises as `load_recipe`."""
    document = yaml.parse(text, dict(overrides or {}))
    recipe = _Reader(document, source).read(text) if not document.problems else None
    if recipe is None or document.problems:
        lines = [f"{source}:{line}:{column}: {text}" for (line, column), text in _sorted(document.problems)]
        raise RecipeError("\n".join(lines), "mend the recipe; recipes/README.md lists every modifier and key")
    return recipe


def _sorted(problems: list[Problem]) -> list[tuple[tuple[int, int], str]]:
    return sorted((problem.place, problem.message) for problem in problems)


class _Reader:
    """Walks a document once and collects problems instead of stopping at the first."""

    def __init__(self, document: Document, source: str) -> None:
        self.document = document
        self.source = source
        self.variables: dict[str, Any] = {}

    def read(self, text: str) -> Recipe | None:
        data = self.document.data
        if not isinstance(data, dict):
            self._problem((), "a recipe is a mapping with at least one '...modifiers' list")
            return None
        self.variables = {k: v for k, v in data.items() if not isinstance(v, dict | Tagged) and "modifiers" not in k}
        self._refuse_unknown_sections(data)
        found = [item for key in data if "modifiers" in key for item in self._group(key, data[key])]
        if not found and not self.document.problems:
            self._problem((), "no modifiers: add a list under a key such as 'pruning_modifiers'")
        sections = {key: self._section(key, data[key]) for key in _SECTIONS if key in data}
        if self.document.problems:
            return None
        modifiers, paths = zip(*found, strict=True)
        return Recipe(
            source=self.source,
            text=text,
            modifiers=modifiers,
            places=tuple("{}:{}:{}".format(self.source, *self.document.place(path)) for path in paths),
            **sections,
        )

    def _problem(self, path: yaml.Path, message: str) -> None:
        self.document.problems.append(Problem(self.document.place(path), message))

    def _refuse_unknown_sections(self, data: dict[str, Any]) -> None:
        for key, value in data.items():
            if not isinstance(value, dict) or key in _SECTIONS or key in _IGNORED or "modifiers" in key:
                continue
            if any("modifiers" in str(inner) for inner in value):
                self._problem((key,), f"stage {key!r}: staged recipes are not supported, use one list of modifiers")
            else:
                self._problem((key,), f"unknown section {key!r}{_nearest(key, _SECTIONS)}")

    def _group(self, key: str, items: Any) -> Iterator[tuple[Modifier, yaml.Path]]:
        if not isinstance(items, list):
            self._problem((key,), f"{key!r} must be a list of modifiers, each '- !NameModifier'")
            return
        for index, item in enumerate(items):
            path = (key, index)
            modifier = self._modifier(item, path)
            if modifier is not None:
                yield modifier, path

    def _modifier(self, item: Any, path: yaml.Path) -> Modifier | None:
        if not isinstance(item, Tagged):
            self._problem(path, "not a modifier: start it with a tag such as '- !EpochRangeModifier'")
            return None
        kind = MODIFIERS.get(item.tag)
        if kind is None:
            self._problem(path, f"unknown modifier !{item.tag}{_nearest(item.tag, MODIFIERS)}")
            return None
        values = item.values or {}
        if not isinstance(values, dict):
            self._problem(path, f"!{item.tag} needs indented 'key: value' lines")
            return None
        values.pop("log_types", None)
        return self._validated(kind, values, path)

    def _section(self, key: str, values: Any) -> Any:
        return self._validated(_SECTIONS[key], values, (key,))

    def _validated(self, kind: type[BaseModel], values: Any, path: yaml.Path) -> Any:
        try:
            return kind.model_validate(self._computed(values, path))
        except ValidationError as error:
            for detail in error.errors():
                self._problem((*path, *detail["loc"]), f"{kind.__name__}{_explain(detail, kind)}")
            return None

    def _computed(self, value: Any, path: yaml.Path) -> Any:
        """``value`` with its ``eval(...)`` strings replaced by what they come to."""
        if isinstance(value, dict):
            return {key: self._computed(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._computed(inner, (*path, index)) for index, inner in enumerate(value)]
        if not expressions.is_expression(value):
            return value
        try:
            return expressions.evaluate(value, self.variables)
        except expressions.ExpressionError as error:
            self._problem(path, f"{value}: {error}")
            return value


def _explain(detail: Any, kind: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f".{where}: unknown key{_nearest(str(detail['loc'][-1]), kind.model_fields)}"
    if detail["type"] == "missing":
        return f": key {where!r} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    given = "" if isinstance(detail["input"], dict) else f", not {detail['input']!r}"
    return (f".{where}" if where else "") + f": {message[0].lower()}{message[1:]}{given}"


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
