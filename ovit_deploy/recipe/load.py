"""A recipe file -> `Recipe`, or one error that names every problem as file:line:column."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe import carrier, dialects, expressions, llm_compressor, stages, tags, yaml
from ovit_deploy.recipe.declaration import Compat, Modifier
from ovit_deploy.recipe.dialects import DIALECTS, Dialect
from ovit_deploy.recipe.modifiers import DistillationModifier, PerLayerDistillationModifier
from ovit_deploy.recipe.names import nearest
from ovit_deploy.recipe.schema import MODIFIERS, ModelSection, Recipe, Training
from ovit_deploy.recipe.stages import Stage, Written
from ovit_deploy.recipe.yaml import Document, Problem

_SECTIONS: dict[str, type[BaseModel]] = {"model": ModelSection, "training": Training}


def load_recipe(
    path: str | Path, overrides: Mapping[str, str] | None = None, *, dialect: Dialect = "sparseml"
) -> Recipe:
    """The recipe in a file.

    Args:
        path: a YAML or JSON file, or a Markdown file with the recipe as its front matter.
        overrides: new values for the recipe's variables, applied before anchors are expanded; in every stage that
            has a variable of that name.
        dialect: of a recipe that does not say its own.

    Raises:
        RecipeError: every problem of the file, one ``file:line:column: message`` a line.
    """
    return parse_recipe(carrier.read(Path(path)), source=str(path), overrides=overrides, dialect=dialect)


def parse_recipe(
    text: str,
    *,
    source: str = "recipe",
    overrides: Mapping[str, str] | None = None,
    dialect: Dialect = "sparseml",
) -> Recipe:
    """The recipe in ``text``; ``source`` names it in errors. Raises as `load_recipe`."""
    recipe, problems = read_recipe(text, source=source, overrides=overrides, dialect=dialect)
    if recipe is None:
        lines = [f"{source}:{line}:{column}: {text}" for (line, column), text in _sorted(problems)]
        raise RecipeError("\n".join(lines), "mend the recipe; recipes/README.md lists every modifier and key")
    return recipe


def read_recipe(
    text: str, *, source: str, overrides: Mapping[str, str] | None = None, dialect: Dialect = "sparseml"
) -> tuple[Recipe | None, list[Problem]]:
    """The recipe in ``text``, or what is wrong with it."""
    inside = carrier.yaml_of(text, source)
    document = yaml.parse(inside, dict(overrides or {}))
    recipe = _Reader(document, source, dialect).read(inside) if not document.problems else None
    if recipe is not None and overrides:
        recipe = recipe.model_copy(update={"overrides": dict(overrides)})
    return (None if document.problems else recipe), document.problems


def _sorted(problems: list[Problem]) -> list[tuple[tuple[int, int], str]]:
    return sorted({(problem.place, problem.message) for problem in problems})


@dataclass(frozen=True)
class _Read:
    """A modifier, the stage it belongs to and where it stands."""

    modifier: Modifier
    stage: str
    path: yaml.Path


class _Reader:
    """Walks a document once and collects problems instead of stopping at the first."""

    def __init__(self, document: Document, source: str, dialect: Dialect) -> None:
        self.document = document
        self.source = source
        self.dialect = dialect

    def read(self, text: str) -> Recipe | None:
        found_stages = stages.split(self.document)
        data = self.document.data if isinstance(self.document.data, dict) else {}
        self.dialect = self._dialect(data)
        compat = self._compat(data)
        found = [self._stage(stage) for stage in found_stages]
        if not any(found) and not self.document.problems:
            self._problem((), "no modifiers: add a list under a key such as 'pruning_modifiers'")
        shared = found_stages[0].variables if found_stages else {}
        self._check_teachers([item for stage in found for item in stage])
        sections = {key: self._section(key, data[key], shared) for key in _SECTIONS if key in data}
        if self.document.problems:
            return None
        ordered = [item for stage in sorted(found, key=_end) for item in stage]
        metadata = data.get("__metadata__")
        return Recipe(
            source=self.source,
            text=text.strip("\n") + "\n" if text.startswith("\n") else text,
            modifiers=tuple(item.modifier for item in ordered),
            compat=compat,
            places=self._places(ordered),
            stages=tuple(item.stage for item in ordered),
            metadata=metadata if isinstance(metadata, dict) else {},
            **sections,
        )

    def _dialect(self, data: dict[str, Any]) -> Dialect:
        named = data.get("dialect", self.dialect)
        if named not in DIALECTS:
            self._problem(("dialect",), f"dialect must be {' or '.join(DIALECTS)}, not {named!r}")
        return "cap" if named == "cap" else "sparseml"

    def _compat(self, data: dict[str, Any]) -> Compat | None:
        named = data.get("compat")
        if named not in (None, "sparseml"):
            self._problem(("compat",), f"compat must be sparseml, or left out, not {named!r}")
        return "sparseml" if named == "sparseml" else None

    def _check_teachers(self, items: list[_Read]) -> None:
        """One teacher's opinion at a time: logits and layers do not go together."""
        both = [
            item for item in items if isinstance(item.modifier, DistillationModifier | PerLayerDistillationModifier)
        ]
        if len({type(item.modifier) for item in both}) < 2:
            return
        ordered = sorted(both, key=lambda item: item.modifier.start)
        for one, other in pairwise(ordered):
            if one.modifier.end_epoch < 0 or one.modifier.end_epoch > other.modifier.start:
                self._problem(other.path, "distils while another modifier does: end one before the other starts")

    def _places(self, items: list[_Read]) -> tuple[str, ...]:
        """Where each stands; a modifier that an anchor repeats gets a number, so that each place is one modifier's."""
        places: list[str] = []
        for item in items:
            place = "{}:{}:{}".format(self.source, *self.document.place(item.path))
            again = sum(1 for known in places if known.split("#")[0] == place)
            places.append(f"{place}#{again + 1}" if again else place)
        return tuple(places)

    def _problem(self, path: yaml.Path, message: str) -> None:
        self.document.problems.append(Problem(self.document.place(path), message))

    def _stage(self, stage: Stage) -> list[_Read]:
        return [
            _Read(modifier, stage.name, path)
            for written in stage.written
            for modifier, path in self._modifiers(written, stage)
        ]

    def _modifiers(self, written: Written, stage: Stage) -> list[tuple[Modifier, yaml.Path]]:
        """The modifier that is written there; several where it asks for several final sparsities."""
        values = {} if written.values is None else written.values
        if self._refused(written, values):
            return []
        values = self._computed(values, written.path, stage.variables)
        try:
            tag, values = self._translated(written, values, stage)
        except (TypeError, ValueError) as error:
            self._problem(written.path, f"{written.tag}: {error}")
            return []
        kind = MODIFIERS[tag]
        built = [(self._validated(kind, part, path), path) for part, path in _parts(values, written.path)]
        return [(modifier, path) for modifier, path in built if modifier is not None]

    def _refused(self, written: Written, values: Any) -> bool:
        tag = written.tag.removeprefix("pytorch.")
        if written.untagged and isinstance(values, dict) and llm_compressor.is_theirs(tag, values):
            return False
        if tag not in MODIFIERS:
            unknown = f"unknown modifier !{tag}{nearest(tag, MODIFIERS)}"
            self._problem(written.path, tags.refusal(tag) or unknown)
        elif not isinstance(values, dict):
            self._problem(written.path, f"!{tag} needs indented 'key: value' lines")
        return tag not in MODIFIERS or not isinstance(values, dict)

    def _translated(self, written: Written, values: dict[str, Any], stage: Stage) -> tuple[str, dict[str, Any]]:
        tag = written.tag.removeprefix("pytorch.")
        if written.untagged:
            return dialects.read_untagged(tag, values, one_shot=stage.variables.get("run_type") == "oneshot")
        return tag, dialects.read_tagged(tag, values, self.dialect)

    def _section(self, key: str, values: Any, variables: Mapping[str, Any]) -> Any:
        return self._validated(_SECTIONS[key], self._computed(values, (key,), variables), (key,))

    def _validated(self, kind: type[BaseModel], values: Any, path: yaml.Path) -> Any:
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            for detail in error.errors():
                if expressions.is_expression(detail["input"]):
                    continue  # told already, by what it lacks
                self._problem((*path, *detail["loc"]), f"{kind.__name__}{_explain(detail, kind)}")
            return None

    def _computed(self, value: Any, path: yaml.Path, variables: Mapping[str, Any]) -> Any:
        """``value`` with its ``eval(...)`` strings replaced by what they come to."""
        if isinstance(value, dict):
            return {key: self._computed(inner, (*path, key), variables) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._computed(inner, (*path, index), variables) for index, inner in enumerate(value)]
        if not expressions.is_expression(value):
            return value
        try:
            return expressions.evaluate(value, variables)
        except expressions.ExpressionError as error:
            self._problem(path, f"{value}: {error}")
            return value


def _end(stage: list[_Read]) -> float:
    """When a stage is over; one whose modifiers all last "to the end" comes last."""
    last = max((item.modifier.end_epoch for item in stage), default=-1.0)
    return last if last >= 0 else math.inf


def _parts(values: dict[str, Any], path: yaml.Path) -> list[tuple[dict[str, Any], yaml.Path]]:
    """One modifier, or one for each sparsity of ``final_sparsity: {0.7: [params], 0.8: [params]}``."""
    by_sparsity = values.get("final_sparsity")
    if not isinstance(by_sparsity, dict) or not by_sparsity or values.get("params", []) != []:
        return [(values, path)]
    return [
        (values | {"final_sparsity": sparsity, "params": params}, (*path, "final_sparsity", sparsity))
        for sparsity, params in by_sparsity.items()
    ]


def _explain(detail: Any, kind: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f".{where}: unknown key{nearest(str(detail['loc'][-1]), kind.model_fields)}"
    if detail["type"] == "missing":
        return f": key {where!r} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    given = "" if isinstance(detail["input"], dict) else f", not {detail['input']!r}"
    return (f".{where}" if where else "") + f": {message[0].lower()}{message[1:]}{given}"
