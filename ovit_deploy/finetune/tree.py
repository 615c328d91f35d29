"""Nested values with tensors in them <-> one safetensors file that tells whether it is whole. No pickle.

Tensors are entries of the file, named after where they stand in the tree; everything else is JSON in its metadata:

    None, bool, int, float, str      as they are
    a list                           [...]
    a tuple                          {"tuple": [...]}
    a mapping (keys str or int)      {"mapping": [[key, value], ...]}
    a tensor                         {"tensor": name}; one that stands in two places is one entry

``sha256`` in the metadata is over the JSON, and every tensor's name, type, shape and bytes: a file that was cut short,
or whose pages never reached the disk, is not taken for whole.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ovit_deploy.errors import RunError

Tree = Any


def to_bytes(tree: Tree) -> bytes:
    """The file's content.

    Raises:
        RunError: something in the tree is none of the above.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encode(tree, "", tensors, {}))
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(copies, metadata={"tree": text, "sha256": _digest(text, copies)})


def read(path: Path) -> Tree:
    """The tree in a file.

    Raises:
        RunError: it cannot be read, or is not whole.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
        if metadata["sha256"] != _digest(metadata["tree"], tensors):
            raise ValueError("its checksum differs")
        return _decode(json.loads(metadata["tree"]), tensors)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise RunError(f"{path}: not a whole checkpoint ({error})") from error


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    return _digest("", tensors)


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _encode(value: Tree, place: str, tensors: dict[str, Tensor], known: dict[int, str]) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Tensor():
            name = known.setdefault(id(value), place or "tensor")
            tensors[name] = value
            return {"tensor": name}
        case list() | tuple():
            items = [_encode(item, f"{place}/{number}", tensors, known) for number, item in enumerate(value)]
            return items if isinstance(value, list) else {"tuple": items}
        case Mapping():
            if not all(type(key) in (str, int) for key in value):
                raise RunError(f"checkpoint: a key at {place} is neither text nor a whole number")
            return {"mapping": [[key, _encode(item, f"{place}/{key}", tensors, known)] for key, item in value.items()]}
    raise RunError(
        f"checkpoint: {type(value).__name__} at {place} cannot be saved", "use another optimizer, such as adamw"
    )


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Tree:
    match value:
        case {"tensor": name}:
            return tensors[name]
        case {"tuple": items}:
            return tuple(_decode(item, tensors) for item in items)
        case {"mapping": pairs}:
            return {key: _decode(item, tensors) for key, item in pairs}
        case list():
            return [_decode(item, tensors) for item in value]
    return value
