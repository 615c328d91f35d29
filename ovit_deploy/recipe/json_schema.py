"""The language of recipes as a JSON Schema, for editors that complete and check YAML.

A schema knows no YAML tags: under a ``...modifiers`` key each item is checked against all modifiers. `custom_tags` are
the tags that an editor must be told of.
"""

from typing import Any

from pydantic.json_schema import models_json_schema

from ovit_deploy.recipe.augmentation import Augmentation
from ovit_deploy.recipe.dialects import DIALECTS
from ovit_deploy.recipe.schema import MODIFIERS, ModelSection, Training

_KINDS = (*MODIFIERS.values(), ModelSection, Training, Augmentation)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a recipe file."""
    _, definitions = models_json_schema([(kind, "validation") for kind in _KINDS], ref_template="#/$defs/{model}")
    modifiers = [{"$ref": f"#/$defs/{name}"} for name in MODIFIERS]
    kinds = definitions["$defs"]
    for kind in kinds.values():
        kind["properties"] = {name: _computable(value) for name, value in kind.get("properties", {}).items()}
    kinds["modifiers"] = {"type": "array", "items": {"anyOf": modifiers}}
    kinds["stage"] = {"type": "object", "patternProperties": {"modifiers": {"$ref": "#/$defs/modifiers"}}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ovit-deploy recipe",
        "type": "object",
        "properties": {
            "version": {"description": "of the format; has no effect"},
            "compat": {"enum": ["sparseml"]},
            "dialect": {"enum": list(DIALECTS), "default": DIALECTS[0]},
            "training": {"$ref": "#/$defs/Training"},
            "model": {"$ref": "#/$defs/ModelSection"},
        },
        "patternProperties": {"modifiers": {"$ref": "#/$defs/modifiers"}},
        "additionalProperties": {
            "description": "a variable, a stage, or one modifier",
            "anyOf": [{"not": {"type": "object"}}, {"$ref": "#/$defs/stage"}, *modifiers],
        },
        "$defs": kinds,
    }


def custom_tags() -> list[str]:
    """What VS Code's ``yaml.customTags`` takes."""
    return [f"!{name} mapping" for name in MODIFIERS]


def _computable(value: dict[str, Any]) -> dict[str, Any]:
    """A property's schema, or an ``eval(...)`` string."""
    told = {key: value[key] for key in ("title", "description", "default") if key in value}
    return {"anyOf": [value, {"type": "string", "pattern": r"^eval\(.*\)$"}], **told}
