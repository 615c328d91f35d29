"""SparseGPT and Wanda as llm-compressor and SparseML's refactored core name them, in our words.

``targets`` and ``ignore`` name layers there, our ``params`` name weights: a layer's pattern, matched from the start of
its name as they do, becomes one of the weights under it. Classes of layers (``Linear``) are known to a model only.
"""

import re
from typing import Any

from ovit_deploy.recipe import mask_types

NAMES = {"SparseGPTModifier": "SparseGPTPruningModifier", "WandaPruningModifier": "WandaPruningModifier"}
# What says where and in which order to compute; of the other keys each stands for one of ours, or is unknown here.
_DROPPED = {"sequential_targets", "sequential_update", "offload_hessians"}
_OURS = {"targets", "ignore", "sparsity", "mask_structure", "dampening_frac", "block_size"} | _DROPPED
_BLOCK = 128


def is_theirs(tag: str, values: dict[str, Any]) -> bool:
    """Whether a modifier in a mapping is written in their keys."""
    return tag in NAMES and "sparsity" in values


def read(tag: str, values: dict[str, Any]) -> dict[str, Any]:
    """The keys of one of their modifiers, which prune once.

    Raises:
        ValueError: a key or value has no counterpart.
    """
    for key in values.keys() - _OURS:
        raise ValueError(f"key {key!r} has no counterpart here")
    if values.get("block_size", _BLOCK) != _BLOCK:
        raise ValueError(f"block_size {values['block_size']!r}: columns go together by {_BLOCK} here; remove the key")
    damp = {"damp": values["dampening_frac"]} if tag == "SparseGPTModifier" and "dampening_frac" in values else {}
    return {
        "params": _weights(values.get("targets"), values.get("ignore", [])),
        "init_sparsity": values["sparsity"],
        "final_sparsity": values["sparsity"],
        "mask_type": mask_types.of_zeros(values.get("mask_structure", "0:0")),
        "start_epoch": 0,
        "end_epoch": 0,
        "update_frequency": 1,
        **damp,
    }


def _weights(targets: Any, ignore: Any) -> list[str]:
    """Selectors of the weights under the named layers."""
    if targets is None:
        raise ValueError("targets are missing: name layers, such as re:.*mlp")
    skipped = "".join(f"(?!{_pattern(layer)})" for layer in _list("ignore", ignore))
    return [f"re:{skipped}{_pattern(layer)}" for layer in _list("targets", targets)]


def _list(key: str, names: Any) -> list[str]:
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{key} must be names of layers, not {names!r}")
    for name in names:
        if not name.startswith("re:") and name[:1].isupper():
            raise ValueError(f"{key}: {name} is a class of layers; name layers, such as re:.*mlp")
    return list(names)


def _pattern(layer: str) -> str:
    """A pattern of the names of weights: of that layer, or of the layers that ``re:...`` matches."""
    if not layer.startswith("re:"):
        return re.escape(layer) + r"\.weight$"
    pattern = layer.removeprefix("re:")
    ends = pattern.endswith("$") and not pattern.endswith(r"\$")
    return f"(?:{pattern.removesuffix('$')})" + (r"\.weight$" if ends else r".*\.weight$")
