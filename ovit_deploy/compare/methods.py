"""The methods of a comparison by name, with the settings of their papers.

Where a paper has no experiment on vision transformers, the settings are those that the oViT paper (arXiv 2210.09223,
section 4 and appendix) gives the method, else the method's own defaults.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ovit_deploy.errors import OvitError
from ovit_deploy.pruning import (
    MFAC,
    OBC,
    FastOViT,
    GlobalMagnitude,
    GradientWeight,
    Method,
    OViT,
    SparseGPT,
    UniformMagnitude,
    Wanda,
    WoodFisher,
)

METHODS: dict[str, Method] = {
    "ovit": OViT(block_size=192, num_grads=4096, damping=1e-8),
    "ovit_refined": OViT(block_size=192, num_grads=4096, damping=1e-8, refine=True),
    "ovit_cumulative": OViT(block_size=192, num_grads=4096, damping=1e-8, allocation="cumulative"),
    "ovit_block4": OViT(block_size=192, num_grads=4096, damping=1e-8, pattern="block4"),
    "fast_ovit": FastOViT(block_size=192, num_grads=256, damping=1e-2),
    "woodfisher": WoodFisher(block_size=192, num_grads=4096, damping=1e-6),
    "mfac": MFAC(block_size=2048, num_grads=1024, damping=1e-6),
    "gradient_weight": GradientWeight(num_grads=4096),
    "magnitude": GlobalMagnitude(),
    "uniform_magnitude": UniformMagnitude(),
    "sparsegpt": SparseGPT(num_samples=1024, damping=1e-2),
    "wanda": Wanda(num_samples=128),
    "obc": OBC(num_samples=1024, damping=1e-2),
}
DEFAULT = ("ovit", "fast_ovit", "woodfisher", "mfac", "gradient_weight", "magnitude", "sparsegpt", "wanda", "obc")
_NUM_IMAGES = ("num_grads", "num_samples")


def named(names: Sequence[str]) -> dict[str, Method]:
    """The methods of these names.

    Raises:
        OvitError: There is none of that name.
    """
    for name in names:
        if name not in METHODS:
            near = difflib.get_close_matches(name, METHODS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise OvitError(f"no method {name!r}", f"{hint}there are {', '.join(METHODS)}")
    return {name: METHODS[name] for name in dict.fromkeys(names)}


def with_settings(methods: Mapping[str, Method], overrides: Sequence[str]) -> dict[str, Method]:
    """``methods`` with new settings, written ``ovit.damping=1e-6``.

    Raises:
        OvitError: Not of that form, or no such method, setting or value.
    """
    changed = dict(methods)
    for override in overrides:
        path, equals, text = override.partition("=")
        name, dot, key = path.strip().partition(".")
        if not (equals and dot):
            raise OvitError(f"--set {override}: not METHOD.SETTING=VALUE", "for example --set ovit.damping=1e-6")
        if name not in changed:
            raise OvitError(f"--set {override}: {name} is not compared", f"there are {', '.join(changed)}")
        known = settings(changed[name])
        if key not in known:
            raise OvitError(f"--set {override}: {name} has no {key}", f"its settings are {', '.join(known) or 'none'}")
        value = _as(type(known[key]), text.strip(), override)
        changed[name] = dataclasses.replace(changed[name], **{key: value})  # type: ignore[type-var]
    return changed


def within(methods: Mapping[str, Method], *, num_images: int, memory_budget: int | None = None) -> dict[str, Method]:
    """``methods`` that look at no more than ``num_images`` images, and use no more than ``memory_budget`` bytes."""
    limited = {}
    for name, method in methods.items():
        own = settings(method)
        change: dict[str, Any] = {key: min(own[key], num_images) for key in _NUM_IMAGES if key in own}
        if "memory_budget" in {field.name for field in dataclasses.fields(method)}:  # type: ignore[arg-type]
            change["memory_budget"] = memory_budget
        limited[name] = dataclasses.replace(method, **change)  # type: ignore[type-var]
    return limited


def settings(method: Method) -> dict[str, Any]:
    """What decides a method's answer, for the record: its fields, without how much memory it may take."""
    fields = dataclasses.asdict(method)  # type: ignore[call-overload]
    return {key: value for key, value in fields.items() if key != "memory_budget"}


def _as(kind: type, text: str, override: str) -> Any:
    """``text`` as a value of a kind."""
    if kind is bool and text in ("true", "false"):
        return text == "true"
    if kind in (int, float, str):
        try:
            return kind(text)
        except ValueError:
            pass
    told = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind)
    hint = f"it takes {told}" if told else "it cannot be set here"
    raise OvitError(f"--set {override}: {text!r} is no value of it", hint)
