"""One model made ready to be measured: ONNX files of one batch size, its dense twin, and images."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

from ovit_deploy.bench import dense_twin, graph
from ovit_deploy.bench.labelled import Labelled
from ovit_deploy.bench.source import Source
from ovit_deploy.checkpoint import load_tensors, read_header, save_tensors
from ovit_deploy.errors import DataError

MAX_SAMPLES = 8
TWIN = "dense twin"
FLOAT_DENSE = "dense float32"


@dataclass(frozen=True)
class Variant:
    """One file to measure, and the same weights as a checkpoint where there is one.

    ``is_twin``: its weights are random, so its logits mean nothing. ``is_integer``: it rounds activations.
    ``is_float_dense``: it is not one of the files, but the dense model in float32 beside them. ``forms``: the same
    model as files for single engines, by their names.
    """

    weights: str
    path: Path
    sparsity: float
    is_twin: bool = False
    is_integer: bool = False
    is_float_dense: bool = False
    checkpoint: Path | None = None
    forms: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """What is measured: variants of one graph, of which the last one without zeros is the dense one.

    Args:
        name: of the model, in words.
        batch_size: images a run.
        variants: the files.
        images: npy file, a multiple of ``batch_size`` images.
        inputs: where the images come from, in words.
        labelled: images whose classes are known, for top-1.
    """

    name: str
    batch_size: int
    variants: tuple[Variant, ...]
    images: Path
    inputs: str
    labelled: Labelled | None = None

    @property
    def dense(self) -> Variant | None:
        """The variant that the others are compared with."""
        files = [variant for variant in self.variants if not variant.is_float_dense]
        return next((variant for variant in reversed(files) if not variant.sparsity), None)

    @property
    def float_dense(self) -> Variant | None:
        """The dense model in float32, if it is measured beside others in integers."""
        return next((variant for variant in self.variants if variant.is_float_dense), None)


def prepare(source: Source, *, batch_size: int, seed: int, folder: Path, with_checkpoints: bool = False) -> Subject:
    """Write all that is measured to ``folder``.

    Args:
        source: the ONNX files; random normal images are made if it has no sample images.
        batch_size: images a run.
        seed: of the twin's weights and of random images.
        folder: a temporary one.
        with_checkpoints: whether an engine wants the checkpoints too.

    Raises:
        ModelError: a file is not ONNX, or fixed to another batch size.
        DataError: the sample images do not fit the graph.
    """
    variants, models, forms = [], [], []
    checkpoints = source.checkpoints if with_checkpoints else (None,) * len(source.files)
    others = source.forms or ({},) * len(source.files)
    for number, (path, checkpoint, other) in enumerate(zip(source.files, checkpoints, others, strict=True)):
        models.append(graph.with_batch(graph.load(path), batch_size))
        forms.append({engine: graph.with_batch(graph.load(form), batch_size) for engine, form in other.items()})
        saved = _save(models[-1], forms[-1], folder / f"variant_{number}.onnx")
        variants.append(replace(saved, checkpoint=checkpoint))
    if all(variant.sparsity for variant in variants):
        dense = {engine: dense_twin.fill_zeros(form, seed=seed) for engine, form in forms[0].items()}
        twin = _save(dense_twin.fill_zeros(models[0], seed=seed), dense, folder / "dense_twin.onnx", is_twin=True)
        variants.append(replace(twin, checkpoint=_twin_checkpoint(checkpoints[0], folder, seed)))
    if source.float_dense:
        variants.append(_float_dense(source.float_dense, batch_size, folder))
    images, inputs = sample_images(graph.image_input(models[0]), source.samples, seed=seed)
    np.save(folder / "images.npy", _whole_batches(images, batch_size))
    return Subject(source.name, batch_size, tuple(variants), folder / "images.npy", inputs)


def _float_dense(path: Path, batch_size: int, folder: Path) -> Variant:
    saved = _save(graph.with_batch(graph.load(path), batch_size), {}, folder / "float_dense.onnx")
    return replace(saved, weights=FLOAT_DENSE, is_float_dense=True)


def sample_images(wanted: graph.Input, folder: Path | None, *, seed: int) -> tuple[np.ndarray, str]:
    """Up to eight images and where they come from: the npz files of ``folder``, else random normal ones.

    Raises:
        DataError: they do not have the shape that the graph wants.
    """
    paths = sorted(folder.glob("*.npz"))[:MAX_SAMPLES] if folder else []
    if not paths:
        images = np.random.default_rng(seed).standard_normal((MAX_SAMPLES, *wanted.shape))
        return images.astype(wanted.dtype), "random normal images"
    images = np.concatenate([_images_in(path, wanted) for path in paths])[:MAX_SAMPLES]
    return images.astype(wanted.dtype), f"{len(images)} images from sample-inputs"


def _images_in(path: Path, wanted: graph.Input) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        image = archive[archive.files[0]]
    if image.shape[-len(wanted.shape) :] != wanted.shape:
        raise DataError(f"{path}: {image.shape}, the graph wants {wanted.shape}", "export the sample inputs again")
    return image.reshape(-1, *wanted.shape)


def _whole_batches(images: np.ndarray, batch_size: int) -> np.ndarray:
    num_images = -(-len(images) // batch_size) * batch_size
    return images[np.arange(num_images) % len(images)]


def _twin_checkpoint(checkpoint: Path | None, folder: Path, seed: int) -> Path | None:
    """The checkpoint with its zeros filled, as the ONNX twin's are."""
    if checkpoint is None:
        return None
    tensors = dense_twin.fill_tensors(load_tensors(checkpoint), seed=seed)
    save_tensors(folder / "dense_twin.safetensors", tensors, read_header(checkpoint).spec)
    return folder / "dense_twin.safetensors"


def _save(
    model: onnx.ModelProto, forms: Mapping[str, onnx.ModelProto], path: Path, *, is_twin: bool = False
) -> Variant:
    paths = {engine: path.with_stem(f"{path.stem}_{engine}") for engine in forms}
    onnx.save(model, path)
    for engine, form in forms.items():
        onnx.save(form, paths[engine])
    sparsity = dense_twin.sparsity(model)
    weights = TWIN if is_twin else f"{100 * sparsity:.3g}% zeros" if sparsity else "dense"
    return Variant(weights, path, sparsity, is_twin, graph.rounds(model), forms=paths)
