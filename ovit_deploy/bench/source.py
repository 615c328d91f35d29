"""Where the files to be measured come from: an ONNX file, a run's export, or a model with random weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovit_deploy import checkpoint, models
from ovit_deploy.bench.suite import Pattern, Precision
from ovit_deploy.errors import RunError

if TYPE_CHECKING:
    from torch import nn

Export = Callable[["nn.Module", Path, Precision], Mapping[str, Path]]


@dataclass(frozen=True)
class Source:
    """ONNX files of one architecture.

    Args:
        name: of the model, in words.
        files: to be measured.
        samples: folder of preprocessed images, if there is one.
        home: the folder that the result belongs to.
        checkpoints: the same weights as safetensors, one for every file; None where there is none.
        float_dense: the same model without zeros in float32, to be measured beside files in integers; or None.
        forms: of every file, the same model in forms that single engines want, by their names; or none at all.
    """

    name: str
    files: tuple[Path, ...]
    samples: Path | None = None
    home: Path = Path()
    checkpoints: tuple[Path | None, ...] = (None,)
    forms: tuple[Mapping[str, Path], ...] = ()
    float_dense: Path | None = None


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
    name: str,
    sparsities: Sequence[float],
    *,
    pattern: Pattern = "unstructured",
    precision: Precision = "float32",
    float_dense: Path | None = None,
    seed: int,
    folder: Path,
    export: Export,
) -> Source:
    """A timm model with random weights, once for every sparsity; every one as ONNX, in float32 as a checkpoint too.

    Args:
        name: as timm knows it, or ``hf:`` and a folder.
        sparsities: fractions of zeros.
        pattern: where the zeros are: anywhere, or in groups of four inputs.
        precision: of the ONNX files.
        float_dense: the dense model in float32, from `dense_in_float`, to be measured beside these files; or None.
        seed: of weights and zeros.
        folder: where the files go.
        export: writes a model to an ONNX file, and beside it the forms that single engines run fast.

    Raises:
        ModelError: timm knows no such model.
    """
    files, checkpoints, forms = [], [], []
    for sparsity in sparsities:
        model = random_model(name, sparsity, pattern=pattern, seed=seed)
        files.append(folder / f"{name.replace('/', '_')}_{sparsity:g}_{pattern}_{precision}.onnx")
        weights = folder / f"{files[-1].stem}.safetensors"
        checkpoint.save_tensors(weights, model.state_dict(), _spec(name))
        checkpoints.append(weights if precision == "float32" else None)
        forms.append(export(model, files[-1], precision))
    told = _told(name, pattern, precision)
    return Source(told, tuple(files), checkpoints=tuple(checkpoints), forms=tuple(forms), float_dense=float_dense)


def dense_in_float(name: str, *, seed: int, folder: Path, export: Export) -> Path:
    """The model of `from_random` without zeros, as float32 ONNX in ``folder``; one file serves all its patterns."""
    path = folder / f"{name.replace('/', '_')}_dense_float32.onnx"
    export(random_model(name, 0.0, seed=seed), path, "float32")
    return path


def _told(name: str, pattern: Pattern, precision: Precision) -> str:
    about = [*(["zeros in fours"] if pattern == "block4" else []), *(["INT8"] if precision == "int8" else [])]
    return f"{name} with random weights" + (f" ({', '.join(about)})" if about else "")


def random_model(name: str, sparsity: float, *, pattern: Pattern = "unstructured", seed: int) -> "nn.Module":
    """The timm model ``name``, its weights and zeros drawn with ``seed``; torch's own generator is left as it was."""
    import torch

    from ovit_deploy.bench.random_weights import make_sparse

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = models.build(models.Choice(_spec(name)))
    return make_sparse(model, sparsity, block=4 if pattern == "block4" else 1, seed=seed)


def _spec(name: str) -> checkpoint.ModelSpec:
    return models.choose(name, checkpoint=None, pretrained=False).spec
