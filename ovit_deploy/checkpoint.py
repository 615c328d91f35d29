"""Files of a run, and safetensors files that say which model they hold.

    runs/<name>/
        model.safetensors   weights; its metadata holds the ModelSpec, so the file alone rebuilds the model
        masks.safetensors   one uint8 tensor a pruned weight, 1 = kept
        recipe.yaml         the recipe as it was run
        run.json            versions, seed, commands, accuracies, sparsities
        metrics.jsonl       one line an epoch and one a pruning
        deployment/         what ``ovit-deploy export`` wrote

The folder appears when everything in it is complete (working_folder.py).
Importing this module does not import torch.
"""

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovit_deploy.errors import ModelError, RunError

if TYPE_CHECKING:
    from torch import Tensor

RUNS = Path("runs")
_MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class ModelSpec:
    """How timm builds a model: its name and arguments, what its classes are called, what is left of it or quantized."""

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] = ()
    quantization: dict[str, Any] | None = None
    structure: dict[str, Any] | None = None
    token_merging: dict[str, int] | None = None  # tokens that go in a block, by its number

    def to_json(self) -> str:
        """The spec as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ModelSpec":
        """The spec in ``text``."""
        values = json.loads(text)
        for key in ("mean", "std", "classes"):
            values[key] = tuple(values[key]) if values.get(key) is not None else None
        return cls(**values | {"classes": values["classes"] or ()})


@dataclass(frozen=True)
class Header:
    """The beginning of a safetensors file: shapes by name, and the model's spec where one of ours wrote it."""

    shapes: dict[str, tuple[int, ...]]
    spec: ModelSpec | None


@dataclass(frozen=True)
class Run:
    """A complete run."""

    folder: Path
    spec: ModelSpec
    recipe_text: str
    facts: dict[str, Any]

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self.folder / "model.safetensors"

    def masks(self) -> "dict[str, Tensor]":
        """Boolean masks by weight name, True = kept."""
        return {name: mask.bool() for name, mask in load_tensors(self.folder / "masks.safetensors").items()}


def read_header(path: Path) -> Header:
    """Shapes and spec of a safetensors file, read without its weights and without torch.

    Raises:
        ModelError: the file is missing or is not a safetensors file.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER:
                raise ValueError("its header is too long")
            entries = json.loads(file.read(length))
        metadata = entries.pop("__metadata__", {})
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        spec = ModelSpec.from_json(metadata["model"]) if "model" in metadata else None
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such checkpoint", "check the path given to --checkpoint") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error})", "copy or convert it again") from error
    return Header(shapes, spec)


def load_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a safetensors file.

    Raises:
        ModelError: it is missing or corrupt.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such checkpoint", "check the path given to --checkpoint") from error
    except SafetensorError as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error})", "copy or convert it again") from error


def save_tensors(path: Path, tensors: "Mapping[str, Tensor]", spec: ModelSpec | None = None) -> None:
    """Write tensors, and the model's spec, so that the file is whole or not there."""
    from safetensors.torch import save

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write(path, save(contiguous, metadata={"model": spec.to_json()} if spec else None))


def write(path: Path, content: bytes | str) -> None:
    """Replace a file at once: written beside it, flushed to disk, renamed, its name flushed to disk.

    Raises:
        OSError: the disk is full or fails; the file is then what it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        flush_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """The names in ``folder`` on the disk, so that a renaming outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_run(folder: Path) -> Run:
    """The run in ``folder``.

    Raises:
        RunError: it is not a complete run.
    """
    try:
        facts = json.loads((folder / "run.json").read_text())
        recipe_text = (folder / "recipe.yaml").read_text()
    except (OSError, ValueError) as error:
        raise RunError(
            f"{folder}: not a complete run ({error})", "ovit-deploy prune --recipe recipes/deit_75.yaml"
        ) from error
    spec = read_header(folder / "model.safetensors").spec
    if spec is None:
        raise RunError(f"{folder}/model.safetensors: does not say which model it holds", "prune again")
    return Run(folder, spec, recipe_text, facts)


def run_folder(name: str | None, runs: Path = RUNS) -> Path:
    """The folder of a run, by its name or its path; the newest without either.

    Raises:
        RunError: there is no run at all.
    """
    if name is None:
        return newest_run(runs)
    return Path(name) if Path(name, "run.json").is_file() else runs / name


def newest_run(runs: Path = RUNS) -> Path:
    """The folder of the run that ended last.

    Raises:
        RunError: there is none.
    """
    return _newest(runs, "*/run.json", "no runs here", "ovit-deploy prune --recipe recipes/deit_75.yaml")


def newest_export(runs: Path = RUNS) -> Path:
    """The newest ``deployment`` folder.

    Raises:
        RunError: there is none.
    """
    return _newest(runs, "*/deployment/model.json", "no exports here", "ovit-deploy export --onnx")


def _newest(runs: Path, pattern: str, what: str, remedy: str) -> Path:
    found = [path for path in runs.glob(pattern) if not path.relative_to(runs).parts[0].startswith(".")]
    if not found:
        raise RunError(f"{runs}/: {what}", remedy)
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent
