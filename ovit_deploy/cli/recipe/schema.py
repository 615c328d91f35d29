"""``ovit-deploy recipe schema``: the language of recipes, for editors."""

from ovit_deploy.cli import render
from ovit_deploy.recipe.json_schema import custom_tags, json_schema


def schema(*, tags: bool = False) -> None:
    """Print the JSON Schema of a recipe, for editors that complete and check YAML.

    Example: ovit-deploy recipe schema > recipe.schema.json

    Args:
        tags: Print the YAML tags instead, for the setting yaml.customTags of VS Code.
    """
    render.as_json(custom_tags() if tags else json_schema())
