"""New values for a recipe's variables, as people write them: a mapping, JSON, or ``name=value,other=value``."""

import json
import re
from collections.abc import Mapping
from typing import Any

from ovit_deploy.errors import RecipeError

Overrides = Mapping[str, Any] | str | None
# A comma separates only where another name follows, so that values may hold commas: params=[a, b],epochs=3.
_SEPARATOR = re.compile(r",\s*(?=[A-Za-z_]\w*\s*[=:])")
_PAIR = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*[=:](.*)", re.DOTALL)
_EXAMPLE = 'for example num_epochs=10, num_epochs=10,sparsity=0.9 or {"num_epochs": 10}'


def read_overrides(given: Overrides) -> dict[str, str]:
    """Values as YAML text, by the name of their variable.

    Raises:
        RecipeError: ``given`` is none of the three, or a value is not a number, a text or a truth value.
    """
    if given is None:
        return {}
    if isinstance(given, str):
        given = _from_json(given) if given.lstrip().startswith("{") else _from_pairs(given)
    return {name: _as_yaml(name, value) for name, value in given.items()}


def _from_json(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"overrides {text!r} are not JSON: {error}", _EXAMPLE) from error
    assert isinstance(values, dict)
    return values


def _from_pairs(text: str) -> dict[str, str]:
    pairs = [(part, _PAIR.fullmatch(part)) for part in _SEPARATOR.split(text) if part.strip()]
    wrong = [part for part, found in pairs if found is None]
    if wrong or not pairs:
        raise RecipeError(f"override {(wrong or [text])[0]!r} is not NAME=VALUE", _EXAMPLE)
    return {found[1]: found[2].strip() for _, found in pairs if found}


def _as_yaml(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    raise RecipeError(f"override {name} is a {type(value).__name__}", "give a number, a text or true or false")
