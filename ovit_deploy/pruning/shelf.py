"""What a pruning that takes hours has worked out so far, on disk: killed and begun again, it takes that up.

    pass 0       one rank's sums over the batches so far, every ten minutes; after the batch they are of
    eliminated   curves of the groups of blocks so far, where there are several
    compensated  new weights of the groups so far, likewise

Sums go on in the order of the uninterrupted pass, so the answer is the same down to the bit. A pruning takes up only
what one of the same ``identity`` left (the same weights, masks and settings). A part is written beside the one before
it, flushed to disk and then takes its place; the files are numpy's, so writing needs no second copy in memory.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from torch import Tensor

from ovit_deploy.errors import PruningError

SECONDS_BETWEEN = 600.0
_FACTS = "facts.json"

Facts = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Shelf:
    """A folder of parts.

    Args:
        folder: Where they are; None keeps nothing.
        identity: Of the pruning.
    """

    folder: Path | None = None
    identity: str = ""
    _last: list[float] = field(default_factory=lambda: [time.monotonic()], repr=False, compare=False)

    def of(self, identity: str) -> "Shelf":
        """The same folder for a pruning."""
        return replace(self, identity=identity, _last=[time.monotonic()])

    @property
    def is_due(self) -> bool:
        """Whether the last part was put there some while ago."""
        return time.monotonic() - self._last[0] >= SECONDS_BETWEEN

    def put(self, name: str, tensors: Mapping[str, Tensor], facts: Facts) -> None:
        """Keep a part in place of the one of that name.

        Raises:
            OSError: The disk is full or fails; the part before is still there.
        """
        if self.folder is None:
            return
        before = self._newest(name)
        number = 0 if before is None else before[1]["number"] + 1
        part = self.folder / f"{name}.{number % 2}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for place, tensor in enumerate(tensors.values()):
            with _flushed(part / f"{place}.npy") as file:
                np.save(file, tensor.numpy(force=True), allow_pickle=False)
        with _flushed(part / f"{_FACTS}.partial") as file:
            file.write(json.dumps(self._header(tensors) | {"number": number, "facts": facts}).encode())
        (part / f"{_FACTS}.partial").rename(part / _FACTS)  # which makes the part count
        if before is not None:
            shutil.rmtree(before[0])
        self._last[0] = time.monotonic()

    def get(self, name: str, tensors: Mapping[str, Tensor]) -> Facts | None:
        """Copy a part that this pruning left into ``tensors``; its facts, or None where there is none.

        Raises:
            PruningError: It is damaged.
        """
        newest = self._newest(name)
        if newest is None:
            return None
        part, known = newest
        if any(known[key] != value for key, value in self._header(tensors).items()):
            return None
        try:
            for place, tensor in enumerate(tensors.values()):
                tensor.copy_(torch.from_numpy(np.load(part / f"{place}.npy", allow_pickle=False)))
        except (OSError, ValueError, RuntimeError) as error:
            raise PruningError(f"{part}: damaged ({error})", "remove that folder: its work is done again") from error
        return known["facts"]

    def clear(self) -> None:
        """Remove all parts."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _header(self, tensors: Mapping[str, Tensor]) -> Facts:
        shapes = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in tensors.items()}
        return {"identity": self.identity, "shapes": shapes}

    def _newest(self, name: str) -> tuple[Path, Facts] | None:
        """The last part of that name that was written to its end."""
        parts = [] if self.folder is None else self.folder.glob(f"{name}.[01]/{_FACTS}")
        found = [(path.parent, json.loads(path.read_text())) for path in parts]
        return max(found, key=lambda part: part[1]["number"], default=None)


@contextmanager
def _flushed(path: Path) -> Iterator[BinaryIO]:
    """A new file that is on the disk afterwards."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


NOWHERE = Shelf()


class Groups:
    """A part that grows while a pruning goes through groups of blocks; what of it was there before is taken up.

    Args:
        shelf: Where it is kept, the same for all ranks.
        name: Of the part.
        tensors: What the groups fill in.
        facts: What else they change, as before the first group.
        writes: Whether this is the rank that keeps it.
    """

    def __init__(self, shelf: Shelf, name: str, tensors: Mapping[str, Tensor], facts: Facts, *, writes: bool) -> None:
        self.shelf, self.name, self.tensors, self.writes = shelf, name, tensors, writes
        self.facts = shelf.get(name, tensors) or facts | {"groups": 0}

    def remaining(self, groups: Sequence[T]) -> Iterator[tuple[int, T]]:
        """The groups that are still to be done, counted from 1; each is kept when it is done."""
        done = self.facts["groups"]
        for number, group in enumerate(groups[done:], start=done + 1):
            yield number, group
            self.facts["groups"] = number
            if self.writes:
                self.shelf.put(self.name, self.tensors, self.facts)
