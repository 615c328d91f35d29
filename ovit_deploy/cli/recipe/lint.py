"""``ovit-deploy recipe lint``: what is wrong or doubtful in a recipe."""

import sys
from dataclasses import asdict
from pathlib import Path

from ovit_deploy import catalog
from ovit_deploy.cli import common, render
from ovit_deploy.recipe import carrier
from ovit_deploy.recipe import lint as linting


def lint(
    recipe: str,
    *,
    model: str | None = None,
    checkpoint: Path | None = None,
    recipe_arg: tuple[str, ...] = (),
    steps_per_epoch: int | None = None,
    json: bool = False,
) -> None:
    """Tell what is wrong or doubtful in a recipe; exit code 1 if anything is an error.

    With --model or --checkpoint the selectors are tried on that model's parameters.

    Example: ovit-deploy recipe lint recipes/deit_75.yaml --model deit_tiny_patch16_224

    Args:
        recipe: A recipe file, or the name of a shipped one.
        model: A timm model name, or hf: and a folder that transformers saved.
        checkpoint: A safetensors file whose parameters are the model's.
        recipe_arg: NAME=VALUE for a variable of the recipe, several with commas, or JSON; may be given several times.
        steps_per_epoch: Of the training to come, to compare schedules with steps.
        json: Print the findings as JSON.
    """
    common.at_least_one(steps_per_epoch)
    path = catalog.find("recipes", recipe)
    findings = linting.lint(
        carrier.read(path),
        source=str(path),
        overrides=common.overrides(recipe_arg),
        shapes=common.shapes_of(model, checkpoint),
        steps_per_epoch=steps_per_epoch,
    )
    if json:
        render.as_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            render.line(f"{finding.place}: {finding.severity} [{finding.code}] {finding.message}")
        counts = {level: sum(one.severity == level for one in findings) for level in ("error", "warning", "note")}
        render.line(", ".join(f"{number} {level}{'' if number == 1 else 's'}" for level, number in counts.items()))
    if any(finding.severity == "error" for finding in findings):
        sys.exit(1)
    if not json:
        render.next_command(f"ovit-deploy recipe plan {recipe}")
