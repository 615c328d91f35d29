"""Fisher blocks on disk, for a second look at them without a second pass over the images.

Of G groups of blocks that do not fit in memory together, each is taken once, written here, and read again when weights
are compensated: G passes instead of 2 G. A file a span, in numpy's format; the folder goes away with its owner.
"""

import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.fisher import Fishers, Span

REMEDY = "spill to a larger disk, or do not spill: twice the passes need no disk"


class Spilled:
    """Groups of Fisher blocks in a folder of their own.

    Args:
        parent: Where that folder is made.
        num_bytes: What all groups take together.

    Raises:
        PruningError: The disk has no room for that, or cannot be written.
    """

    def __init__(self, parent: Path, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        try:
            free = shutil.disk_usage(parent).free
            if free >= num_bytes:
                self.folder = Path(tempfile.mkdtemp(prefix="fisher-", dir=parent))
        except OSError as error:
            raise PruningError(
                f"{parent}: Fisher blocks cannot be written there ({error.strerror})", "spill to a folder that exists"
            ) from error
        if free < num_bytes:
            raise PruningError(
                f"{parent}: Fisher blocks take {num_bytes / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free",
                REMEDY,
            )
        self._files: dict[Span, Path] = {}
        self.remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def put(self, fishers: Fishers) -> None:
        """Write a group."""
        for span, held in fishers.blocks.items():
            path = self.folder / f"{len(self._files)}.npy"
            try:
                np.save(path, held.numpy(force=True), allow_pickle=False)
            except OSError as error:
                raise PruningError(
                    f"{path}: {error.strerror}",
                    REMEDY,
                ) from error
            self._files[span] = path

    def get(self, group: list[Span], mean_loss: float, like: Tensor) -> Fishers:
        """Read a group back, to the device of ``like``."""
        blocks = {
            span: torch.from_numpy(np.load(self._files[span], allow_pickle=False)).to(like.device) for span in group
        }
        return Fishers(blocks, mean_loss)
