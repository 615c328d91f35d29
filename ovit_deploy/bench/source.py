"""Where the files to be measured come from: an ONNX file, a run's export, or a model with random weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovit_deploy import checkpoint, models
from ovit_deploy.errors import RunError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Source:
    """ONNX files of one architecture.

    Args:
        name: of the model, in words.
        files: to be measured.
        samples: folder of preprocessed images, if there is one.
        home: the folder that the result belongs to.
        checkpoints: the same weights as safetensors, one for every file; None where there is none.
    """

    name: str
    files: tuple[Path, ...]
    samples: Path | None = None
    home: Path = Path()
    checkpoints: tuple[Path | None, ...] = (None,)


def from_file(path: Path) -> Source:
    """One ONNX file; in an export its sample images and its run belong to it."""
    folder = path.parent
    is_export = (folder / "model.json").is_file()
    run = folder.parent if folder.name else folder.resolve().parent
    home = run if is_export else Path()
    weights = home / "model.safetensors"
    checkpoints = (weights if is_export and weights.is_file() else None,)
    return Source(str(path), (path,), folder / "sample-inputs", home, checkpoints)


def from_run(name: str | None, runs: Path = checkpoint.RUNS) -> Source:
    """The export of a run (its name or folder), or the newest export of all.

    Raises:
        RunError: there is none.
    """
    if name is None:
        folder = checkpoint.newest_export(runs)
    else:
        folder = (Path(name) if Path(name).is_dir() else runs / name) / "deployment"
    if not (folder / "model.onnx").is_file():
        raise RunError(f"{folder}: no export there", f"ovit-deploy export --onnx --run {name or folder.parent.name}")
    return from_file(folder / "model.onnx")


def from_random(
    name: str, sparsities: Sequence[float], *, seed: int, folder: Path, export: Callable[["nn.Module", Path], None]
) -> Source:
    """A timm model with random weights, once for every sparsity; every one as ONNX and as a checkpoint.

    Args:
        name: as timm knows it, or ``hf:`` and a folder.
        sparsities: fractions of zeros.
        seed: of weights and zeros.
        folder: where the files go.
        export: writes a model to an ONNX file.

    Raises:
        ModelError: timm knows no such model.
    """
    files, checkpoints = [], []
    for sparsity in sparsities:
        model = random_model(name, sparsity, seed=seed)
        files.append(folder / f"{name.replace('/', '_')}_{sparsity:g}.onnx")
        checkpoints.append(folder / f"{files[-1].stem}.safetensors")
        checkpoint.save_tensors(checkpoints[-1], model.state_dict(), _spec(name))
        export(model, files[-1])
    return Source(f"{name} with random weights", tuple(files), checkpoints=tuple(checkpoints))


def random_model(name: str, sparsity: float, *, seed: int) -> "nn.Module":
    """The timm model ``name``, its weights and zeros drawn with ``seed``; torch's own generator is left as it was."""
    import torch

    from ovit_deploy.bench.random_weights import make_sparse

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = models.build(models.Choice(_spec(name)))
    return make_sparse(model, sparsity, seed=seed)


def _spec(name: str) -> checkpoint.ModelSpec:
    return models.choose(name, checkpoint=None, pretrained=False).spec
