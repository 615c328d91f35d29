"""Top-1 of an exported model through an engine, in the engine's own process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ovit_deploy.engines.process import EngineProcess


def top1(
    process: EngineProcess,
    model: Path,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    batch_size: int,
    threads: int,
) -> tuple[int, int]:
    """How many images ``process`` tells right with ``model``, and how many there are.

    Images go to the engine through files, one batch of ``batches`` at a time, so that a large test set never lies in
    memory or on the disk as a whole.

    Args:
        process: of the engine; the model is loaded here.
        model: the file, of the kind that the engine reads.
        batches: images [N, C, H, W] as the model wants them, with their classes [N]; N may differ.
        batch_size: images a run.
        threads: of the engine.

    Raises:
        EngineError: the engine refuses the model, crashes or hangs.
    """
    correct = total = 0
    with tempfile.TemporaryDirectory(prefix="ovit-evaluate-") as folder:
        images_file = Path(folder, "images.npy")
        for images, labels in batches:
            save_whole(images_file, images, batch_size)
            if not total:
                process.load(model, images_file, batch_size=batch_size, threads=threads)
            correct += int(told_right(process, images_file, labels).sum())
            total += len(labels)
    return correct, total


def told_right(process: EngineProcess, images_file: Path, labels: np.ndarray) -> np.ndarray:
    """Whether the loaded model's largest logit is that of the class [N], image by image.

    Args:
        process: of the engine, its model loaded.
        images_file: from `save_whole`; the logits are written beside it.
        labels: classes [N] of the first N images.

    Raises:
        EngineError: the engine crashes or hangs.
    """
    logits_file = images_file.with_name(f"logits_{process.pid}.npy")
    process.infer(images_file, logits_file)
    return np.load(logits_file)[: len(labels)].argmax(axis=1) == labels


def save_whole(path: Path, images: np.ndarray, batch_size: int) -> None:
    """Write ``images`` (npy), the first of them again where the last batch is not full."""
    missing = -len(images) % batch_size
    np.save(path, np.concatenate([images, images[np.arange(missing) % len(images)]]) if missing else images)
