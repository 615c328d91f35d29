"""What a run is of, kept beside its checkpoints: enough to begin it again, and to refuse to go on with something else.

``resume/start.json``: the recipe's text and overrides, the model and where its weights come from, the data set's name,
and the fingerprint. Equal fingerprints mean equal recipes, starting weights, images (as far as data/identity.py looks)
and versions of all that computes, so that the run ends with the weights of one that was never cut off, down to the bit,
on the same kind of processor with the same number of threads and processes (on CUDA that has not been tried).
"""

import difflib
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ovit_deploy import checkpoint
from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.data import ImageData
from ovit_deploy.data.identity import identity
from ovit_deploy.device import describe
from ovit_deploy.errors import RunError
from ovit_deploy.finetune import tree
from ovit_deploy.models import Choice
from ovit_deploy.recipe import Recipe
from ovit_deploy.recipe.load import parse_recipe

PACKAGES = ("ovit-deploy", "torch", "torchvision", "timm", "numpy", "numba", "safetensors")
_FILE = "start.json"
_SHOWN = 12


def versions() -> dict[str, str]:
    """Of the packages that compute, and of Python."""
    return {package: version(package) for package in PACKAGES} | {"python": platform.python_version()}


@dataclass(frozen=True)
class Start:
    """A run before its first step. ``machine`` is what changes the last bits and does not keep a run from going on."""

    recipe: dict[str, Any]
    choice: dict[str, Any]
    data: str | None
    memory_budget: int | None
    fingerprint: dict[str, Any]
    machine: dict[str, Any]

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        choice: Choice,
        data: ImageData,
        model: nn.Module,
        memory_budget: int | None,
        *,
        num_ranks: int = 1,
    ) -> "Start":
        """For a model with its starting weights, on the device where it is, in so many processes."""
        written = {
            "text": recipe.text,
            "source": recipe.source,
            "overrides": recipe.overrides,
            "places": list(recipe.places),
        }
        weights = None if choice.weights is None else str(choice.weights)
        named = {"spec": asdict(choice.spec), "weights": weights, "pretrained": choice.pretrained}
        fingerprint = {
            "recipe": written | {"settings": [repr(item) for item in (recipe.training, *recipe.modifiers)]},
            "model": asdict(choice.spec) | {"starting weights sha256": tree.digest(model.state_dict())},
            "data": identity(data),
            "versions": versions(),
        }
        machine = {
            "device": describe(next(model.parameters()).device),
            "processes": num_ranks,
            "threads": torch.get_num_threads(),
            "processor": platform.processor() or platform.machine(),
        }
        return cls(written, named, data.source, memory_budget, json.loads(json.dumps(fingerprint)), machine)

    @classmethod
    def read(cls, folder: Path) -> "Start":
        """What `write` wrote.

        Raises:
            RunError: it is not there, or not whole.
        """
        try:
            return cls(**json.loads((folder / _FILE).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{folder}: nothing to resume ({error})", "check the name; runs/ shows them") from error

    def write(self, folder: Path) -> None:
        """Keep it, in a new folder."""
        folder.mkdir()
        checkpoint.write(folder / _FILE, json.dumps(asdict(self), indent=2))

    def recipe_again(self) -> Recipe:
        """The recipe that the run was started with."""
        # The text is YAML whatever file it came from, and may have lost lines before it: places are those of that file.
        recipe = parse_recipe(self.recipe["text"], source="recipe.yaml", overrides=self.recipe["overrides"])
        return recipe.model_copy(update={"source": self.recipe["source"], "places": tuple(self.recipe["places"])})

    def choice_again(self) -> Choice:
        """The model that the run was started with."""
        spec = ModelSpec.from_json(json.dumps(self.choice["spec"]))
        weights = self.choice["weights"]
        return Choice(spec, None if weights is None else Path(weights), self.choice["pretrained"])

    def check(self, other: "Start", report: Callable[[str], None]) -> None:
        """Refuse to go on with ``other`` if it is something else; report what may change the last bits.

        Raises:
            RunError: it is; the message shows the difference.
        """
        found = list(_differences(self.fingerprint, other.fingerprint))
        if found:
            more = [f"... and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
            raise RunError(
                "\n".join(["this is not the run that was cut off:", *found[:_SHOWN], *more]),
                "give what it was started with, or start a new run with another --name",
            )
        for line in _differences(self.machine, other.machine):
            report(f"{line}: the last bits of the weights may differ from those of a run that was not cut off")


def _differences(before: Any, now: Any, place: str = "") -> list[str]:
    """Lines such as ``versions.torch: 2.10.0, now 2.11.0``; of texts, the lines that differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        return [
            line
            for key in keys
            for line in _differences(before.get(key), now.get(key), f"{place}.{key}" if place else key)
        ]
    if before == now:
        return []
    if isinstance(before, str) and isinstance(now, str) and "\n" in before + now:
        lines = difflib.unified_diff(before.splitlines(), now.splitlines(), n=0, lineterm="")
        return [f"{place}: {line}" for line in lines if not line.startswith(("---", "+++", "@@"))]
    return [f"{place}: {before}, now {now}"]
