"""YAML text -> plain data that remembers where each value stands, so that errors can say file:line:column.

YAML 1.2 (``1e-8`` is a number, ``2:4`` is a string). Tags, anchors and merge keys are read; duplicate keys are errors.
"""

from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ovit_deploy.recipe.names import nearest

Path = tuple[str | int, ...]
Place = tuple[int, int]
_MAX_BYTES = 1_000_000
_MAX_NODES = 100_000
_MAX_NESTING = 50
_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}


@dataclass(frozen=True)
class Tagged:
    """A mapping under a YAML tag: ``!Name`` with its values."""

    tag: str
    values: Any


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, with the line and column (from 1) where it stands."""

    place: Place
    message: str


@dataclass
class Document:
    """The data of a file, the place of every value by its path, and what was wrong with the text."""

    data: Any = None
    places: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path) -> Place:
        """Where the value at ``path`` stands, or the nearest value around it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (1, 1))


def parse(text: str, overrides: dict[str, str] | None = None) -> Document:
    """The document in ``text``; ``overrides`` replace top-level scalars before anchors are expanded."""
    document = Document()
    if len(text) > _MAX_BYTES:
        document.problems.append(Problem((1, 1), f"larger than {_MAX_BYTES:,} characters"))
        return document
    try:
        root = _compose(text)
        if overrides:
            _override(root, overrides, document)
        document.data = _Builder(document).build(root, ()) if root is not None else {}
    except MaxDepthExceededError:
        document.problems.append(Problem((1, 1), f"nested more than {_MAX_NESTING} deep"))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        document.problems.append(Problem(place, error.problem or error.context or "not YAML"))
    except (YAMLError, RecursionError, ValueError) as error:
        document.problems.append(Problem((1, 1), f"not YAML: {str(error).splitlines()[0] if str(error) else 'broken'}"))
    return document


def _compose(text: str) -> Any:
    """The nodes of ``text``. An anchor may be given anew; nesting is bounded, and so the parser's time and stack."""
    reader = YAML(typ="rt")
    reader.max_depth = _MAX_NESTING
    reader.composer.warn_double_anchors = False
    return reader.compose(text)


def _override(root: Any, overrides: dict[str, str], document: Document) -> None:
    scopes = [root, *_stages(root)]
    variables: dict[str, list[ScalarNode]] = {}
    for scope in scopes:
        for key, value in scope.value if isinstance(scope, MappingNode) else ():
            if isinstance(value, ScalarNode):
                variables.setdefault(str(key.value), []).append(value)
    for name, text in overrides.items():
        for node in variables.get(name, ()):
            _replace(node, text)
        if name not in variables:
            known = nearest(name, variables) if variables else "; the recipe has none"
            document.problems.append(Problem((1, 1), f"no variable {name!r} to override{known}"))


def _stages(root: Any) -> list[MappingNode]:
    """The top-level mappings that hold modifiers: their variables are overridden, too."""
    values = [value for _, value in root.value] if isinstance(root, MappingNode) else []
    return [
        value
        for value in values
        if isinstance(value, MappingNode) and any("modifiers" in str(key.value) for key, _ in value.value)
    ]


def _replace(node: ScalarNode, text: str) -> None:
    try:
        new = _compose(text)
    except YAMLError:
        new = None
    node.value, node.style = (new.value, new.style) if isinstance(new, ScalarNode) else (text, '"')
    node.ctag = new.ctag if isinstance(new, ScalarNode) else node.ctag


class _Builder:
    """Turns ruamel's nodes into plain data; counts them, so that aliases cannot blow up."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0

    def build(self, node: Node, path: Path) -> Any:
        self.count += 1
        if self.count > _MAX_NODES:
            raise ValueError(f"more than {_MAX_NODES:,} values")
        self.document.places.setdefault(path, _place(node))
        tag = str(node.ctag) if node.ctag else ""
        value = self._value(node, path)
        if tag.startswith("!") and tag != "!":
            return Tagged(tag[1:].removesuffix(":"), value)
        return value

    def _value(self, node: Node, path: Path) -> Any:
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return _scalar(node)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.value == "<<":
                merged = self._merged(value_node, path) | merged
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key == "<<":
                continue
            place = _place(key_node)
            if key in own:
                self.document.problems.append(Problem(place, f"key {key!r} stands here a second time"))
            self.document.places[(*path, key)] = place
            own[key] = self.build(value_node, (*path, key))
        return merged | own

    def _merged(self, node: Node, path: Path) -> dict[str, Any]:
        """What ``<<`` brings in: a mapping, or several of which the first wins."""
        merged: dict[str, Any] = {}
        for source in reversed(node.value if isinstance(node, SequenceNode) else [node]):
            if not isinstance(source, MappingNode):
                self.document.problems.append(Problem(_place(source), "'<<' merges mappings only"))
                continue
            merged |= self._mapping(source, path)
        return merged


def _place(node: Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _scalar(node: ScalarNode) -> Any:
    text = str(node.value)
    if node.style in ("'", '"', "|", ">"):
        return text
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
