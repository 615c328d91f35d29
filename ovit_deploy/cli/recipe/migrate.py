"""``ovit-deploy recipe migrate``: a recipe in another tool's words, in ours."""

from ovit_deploy import catalog
from ovit_deploy.cli import common, render
from ovit_deploy.recipe import load_recipe
from ovit_deploy.recipe.dialects import Dialect
from ovit_deploy.recipe.write import header_of, write


def migrate(recipe: str, *, dialect: Dialect = "sparseml", recipe_arg: tuple[str, ...] = ()) -> None:
    """Print a recipe of SparseML, CAP or llm-compressor in our words, which mean one thing only.

    Tags take the place of names in mappings, cyclic functions are called cyclic, N:M counts what is kept, and
    expressions are computed. The comment at the top is kept.

    Example: ovit-deploy recipe migrate 300ep_vit.yaml --dialect cap > new.yaml

    Args:
        recipe: A recipe file, or the name of a shipped one.
        dialect: Whose recipe it is, where it does not say so itself.
        recipe_arg: NAME=VALUE for a variable of the recipe, several with commas, or JSON; may be given several times.
    """
    read = load_recipe(catalog.find("recipes", recipe), common.overrides(recipe_arg), dialect=dialect)
    render.line(write(read, header_of(read.text)).rstrip("\n"))
