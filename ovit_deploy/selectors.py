"""Selectors of parameters, as recipes write them, against the names and shapes of a model."""

import difflib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

Shapes = Mapping[str, Sequence[int]]


class SelectorError(ValueError):
    """A selector that is not a pattern or matches nothing; the message says which."""


def prunable(shapes: Shapes) -> list[str]:
    """What ``__ALL_PRUNABLE__`` stands for: weights of linear, convolution and embedding layers."""
    return [name for name, shape in shapes.items() if name.endswith(".weight") and len(shape) >= 2]


def match(selectors: Sequence[str], shapes: Shapes) -> list[str]:
    """The names that ``selectors`` select, in the model's order.

    A selector is a full name, ``re:PATTERN`` (matched from the start, as ``re.match``), ``__ALL__`` or
    ``__ALL_PRUNABLE__``.

    Raises:
        SelectorError: one of them matches nothing.
    """
    chosen = {name for selector in selectors for name in _match_one(selector, shapes)}
    return [name for name in shapes if name in chosen]


def match_some(selectors: Sequence[str], shapes: Shapes) -> list[str]:
    """As `match`, but a selector may match nothing."""
    matching = []
    for selector in selectors:
        with suppress(SelectorError):
            matching += _match_one(selector, shapes)
    return [name for name in shapes if name in set(matching)]


def _match_one(selector: str, shapes: Shapes) -> list[str]:
    if selector == "__ALL__":
        return list(shapes)
    if selector == "__ALL_PRUNABLE__":
        return prunable(shapes)
    if selector.startswith("re:"):
        return _match_pattern(selector.removeprefix("re:"), shapes)
    if selector in shapes:
        return [selector]
    near = difflib.get_close_matches(selector, shapes, n=1)
    raise SelectorError(f"no parameter is named {selector!r}" + (f", did you mean {near[0]!r}?" if near else ""))


def _match_pattern(pattern: str, shapes: Shapes) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SelectorError(f"{pattern!r} is not a regular expression: {error}") from error
    names = [name for name in shapes if compiled.match(name)]
    if not names:
        raise SelectorError(f"pattern {pattern!r} matches no parameter; the model has, for example, {_example(shapes)}")
    return names


def _example(shapes: Shapes) -> str:
    names = prunable(shapes) or list(shapes)
    return ", ".join(names[1:4] or names) or "none"
