"""Which tensors a modifier means: ``params`` selectors against a model's parameter names and shapes."""

from ovit_deploy.errors import RecipeError
from ovit_deploy.families import family_of
from ovit_deploy.recipe.modifiers import ConstantPruningModifier, TrainableParamsModifier
from ovit_deploy.recipe.parameters import GradualParamModifier, SetParamModifier
from ovit_deploy.recipe.schema import Recipe
from ovit_deploy.recipe.sparsifier import Sparsifier
from ovit_deploy.selectors import SelectorError, Shapes, match, match_some

Targeting = Sparsifier | ConstantPruningModifier | TrainableParamsModifier | SetParamModifier | GradualParamModifier


def targeting(recipe: Recipe) -> list[tuple[Targeting, str]]:
    """The modifiers that name parameters, and their places."""
    return [
        (modifier, place)
        for modifier, place in zip(recipe.modifiers, recipe.places, strict=True)
        if isinstance(modifier, Targeting)
    ]


def resolve(recipe: Recipe, shapes: Shapes, model: str = "") -> dict[str, list[str]]:
    """Parameter names by the place of the modifier that targets them.

    Args:
        recipe: whose modifiers.
        shapes: of the model's parameters, by name.
        model: its timm name, so that an error can name the recipe of its family.

    Raises:
        RecipeError: every selector that matches nothing, each with file:line:column.
    """
    found: dict[str, list[str]] = {}
    problems = []
    for modifier, place in targeting(recipe):
        strict = getattr(modifier, "params_strict", True)
        try:
            found[place] = match(modifier.params, shapes) if strict else match_some(modifier.params, shapes)
        except SelectorError as error:
            problems.append(f"{place}: {type(modifier).__name__}.params: {error}")
    if problems:
        family = family_of(model)
        hint = f"recipe {family.recipe} names those of {family.name}" if family else "--dry-run lists what matched"
        raise RecipeError("\n".join(problems), f"name parameters of this model; {hint}")
    return found
