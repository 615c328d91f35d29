"""Recipes: what to do when. Reading one needs no torch."""

from ovit_deploy.recipe.compose import compose
from ovit_deploy.recipe.load import load_recipe
from ovit_deploy.recipe.schema import Recipe
from ovit_deploy.recipe.timeline import Timeline, timeline

__all__ = ["Recipe", "Timeline", "compose", "load_recipe", "timeline"]
