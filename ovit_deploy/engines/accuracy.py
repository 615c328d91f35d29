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
        images_file, logits_file = Path(folder, "images.npy"), Path(folder, "logits.npy")
        for images, labels in batches:
            np.save(images_file, _whole_batches(images, batch_size))
            if not total:
                process.load(model, images_file, batch_size=batch_size, threads=threads)
            process.infer(images_file, logits_file)
            answers = np.load(logits_file)[: len(labels)].argmax(axis=1)
            correct, total = correct + int((answers == labels).sum()), total + len(labels)
    return correct, total


def _whole_batches(images: np.ndarray, batch_size: int) -> np.ndarray:
    """The images, the first of them again where the last batch is not full."""
    missing = -len(images) % batch_size
    return np.concatenate([images, images[np.arange(missing) % len(images)]]) if missing else images
