"""Pruners of one's own as recipe tags.

The short way, with this package's own protocol: a pydantic class says what a recipe may write, and which method it
stands for::

    @register_modifier()
    class RandomPruningModifier(PruningModifier):
        seed: int = 0

        def method(self, memory_budget: int | None) -> Method:
            return Random(self.seed)

SparseML's way is a subclass of `ovit_deploy.manager.BaseGradualPruningModifier`; the arguments of its ``__init__``
become the keys of the tag. The tag is the class's name, either way.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import create_model

from ovit_deploy.errors import RecipeError
from ovit_deploy.manager.ported import BaseGradualPruningModifier, PortedModifier
from ovit_deploy.recipe.declaration import Modifier
from ovit_deploy.recipe.pruners import PruningModifier
from ovit_deploy.recipe.schema import MODIFIERS

Kind = TypeVar("Kind", bound=type)

# What SparseML would call, and this engine does not: its own loop decides when.
_LIFE_CYCLE = (
    "initialize",
    "initialize_extras",
    "finalize",
    "update",
    "scheduled_update",
    "update_ready",
    "check_mask_update",
    "optimizer_pre_step",
    "optimizer_post_step",
    "loss_update",
    "get_applied_sparsity_for_epoch",
    "_create_pruning_mask",
    "_create_named_layers_and_params",
    "load_state_dict",
    "state_dict",
)


def register_modifier() -> Callable[[Kind], Kind]:
    """A class decorator that lets recipes name the class: ``!ClassName``. For this process.

    Raises:
        RecipeError: The tag is taken, or the class is of a kind that cannot be carried out.
    """

    def register(kind: Kind) -> Kind:
        known, tag = MODIFIERS.get(kind.__name__), kind.__name__
        modifier = _modifier(kind)
        if known is not None and known.__module__ != modifier.__module__:
            raise RecipeError(f"!{tag} is taken by {known.__module__}", "give the class another name")
        MODIFIERS[tag] = modifier
        return kind

    return register


PyTorchModifierYAML = register_modifier


def _modifier(kind: type) -> type[Modifier]:
    if issubclass(kind, PruningModifier) and callable(getattr(kind, "method", None)):
        return kind
    if issubclass(kind, BaseGradualPruningModifier):
        return _ported(kind)
    raise RecipeError(
        f"{kind.__name__} cannot be a modifier",
        "derive it from ovit_deploy.recipe.pruners.PruningModifier with a method(), or from BaseGradualPruningModifier",
    )


def _ported(kind: type[BaseGradualPruningModifier]) -> type[PortedModifier]:
    """The keys of a SparseML-style pruner: those of every gradual pruner that it takes, and its own."""
    overridden = [name for name in _LIFE_CYCLE if name in vars(kind)]
    if overridden:
        raise RecipeError(
            f"{kind.__name__} overrides {', '.join(overridden)}, which nobody calls here",
            "only _get_scorer and _get_mask_creator are asked; write the rest as an ovit_deploy.pruning.Method",
        )
    fields: dict[str, Any] = {}
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    takes = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    for parameter in parameters:
        if parameter.name not in takes:
            continue
        given = parameter.default is not parameter.empty
        field = PruningModifier.model_fields.get(parameter.name)
        if field is None:
            fields[parameter.name] = (Any, parameter.default if given else ...)
        elif given:
            fields[parameter.name] = (field.annotation, parameter.default)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        takes |= inspect.signature(BaseGradualPruningModifier).parameters.keys() - {"others"}
    made = create_model(kind.__name__, __base__=PortedModifier, __module__=kind.__module__, **fields)
    made.__doc__ = kind.__doc__
    made.kind, made.takes = kind, frozenset(takes)
    return made
