"""ovit-deploy: prune vision transformers with oViT, export sparse ONNX, measure the speed-up on real engines.

The public names are imported when they are first used, so that ``import ovit_deploy`` costs nothing:

    load_recipe                a recipe file, checked                         ovit_deploy.recipe
    run                        a recipe carried out on a model and images     ovit_deploy.finetune.run
    ScheduledModifierManager   a recipe carried out in a loop of your own     ovit_deploy.manager
    register_modifier          a pruner of your own as a recipe's tag         ovit_deploy.manager
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "ScheduledModifierManager": "ovit_deploy.manager",
    "register_modifier": "ovit_deploy.manager",
    "load_recipe": "ovit_deploy.recipe",
    "run": "ovit_deploy.finetune.run",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
