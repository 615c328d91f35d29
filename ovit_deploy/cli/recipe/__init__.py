"""``ovit-deploy recipe``: look at a recipe without training anything."""

from cyclopts import App

from ovit_deploy.cli.recipe.lint import lint
from ovit_deploy.cli.recipe.migrate import migrate
from ovit_deploy.cli.recipe.plan import plan
from ovit_deploy.cli.recipe.schema import schema

recipe = App(name="recipe", help="Check, plan, describe or translate a recipe; nothing is trained.", sort_key=9)
for number, verb in enumerate((lint, plan, schema, migrate)):
    recipe.command(verb, sort_key=number)
