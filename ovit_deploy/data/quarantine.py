"""Training images that cannot be read: left out, named, counted, and too many of them an error.

In place of a damaged image the next whole one of the data set is shown. So what training sees is a function of the
files and of seed, epoch and position, whichever process meets the damage first, and a run that is resumed sees the
same. Test images have no such wrapper: a damaged one is an error.

``quarantine.jsonl`` in the run's folder has a line an image: its number in the data set, its name, what is wrong. All
processes of a run add to it, those that prepare images too, and read from it what the others have met.
"""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from ovit_deploy.errors import DamagedImageError, DataError

FILE = "quarantine.jsonl"
_NAMED = 5


class Quarantine:
    """The damaged images of one run.

    Args:
        num_images: in the training set.
        share: of them that may be damaged.
    """

    def __init__(self, num_images: int, share: float) -> None:
        self.num_images = num_images
        self.share = share
        self.most = math.floor(share * num_images)
        self.found: dict[int, str] = {}  # by number: name and what is wrong
        self.told: set[int] = set()
        self.path: Path | None = None
        self.read = 0  # bytes of the file

    def keep_in(self, folder: Path) -> None:
        """Write to a run's folder from now on; what is there already was told when it was met."""
        self.path = folder / FILE
        before, self.found = self.found, {}
        self._read()
        self.told = set(self.found)
        for number in before.keys() - self.found.keys():
            self._write(number, before[number])
        self.found |= before

    def note(self, number: int, error: DamagedImageError) -> None:
        """Take a damaged image in.

        Raises:
            DataError: there are too many.
        """
        if number in self.found:
            return
        self.found[number] = error.message
        if self.path is not None:
            self._write(number, error.message)
        self._check()

    def tell(self, report: Callable[[str], None]) -> None:
        """Report the images that were met since the last time, by whichever process.

        Raises:
            DataError: there are too many.
        """
        self._read()
        for number in sorted(self.found.keys() - self.told):
            report(f"{self.found[number]}: left out of training")
        self.told |= self.found.keys()
        self._check()

    def _check(self) -> None:
        if len(self.found) <= self.most:
            return
        named = [f"  {self.found[number]}" for number in sorted(self.found)[:_NAMED]]
        more = [f"  and {len(self.found) - _NAMED} more"] if len(self.found) > _NAMED else []
        raise DataError(
            "\n".join(
                [
                    f"{len(self.found)} of {self.num_images} training images met so far are damaged, "
                    f"max_damaged_images {self.share:g} allows {self.most}:",
                    *named,
                    *more,
                ]
            ),
            "replace or remove these files, or raise training.max_damaged_images in the recipe",
        )

    def _write(self, number: int, what: str) -> None:
        """Add a line in one write, so that lines of several processes do not mix."""
        assert self.path is not None
        line = json.dumps({"number": number, "what": what}) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def _read(self) -> None:
        """Take in the lines that are new in the file; one that a crash has cut off is passed over."""
        if self.path is None or not self.path.exists() or self.path.stat().st_size == self.read:
            return
        content = self.path.read_bytes()
        self.read = len(content)
        for line in content.splitlines():
            try:
                entry = json.loads(line)
                self.found.setdefault(entry["number"], entry["what"])
            except (ValueError, KeyError, TypeError):
                continue


class WholeImages(Dataset[Any]):
    """A data set in which the next whole image stands for a damaged one."""

    def __init__(self, dataset: Dataset[Any], quarantine: Quarantine) -> None:
        self.dataset = dataset
        self.quarantine = quarantine

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        while True:  # ends: there are more images than may be damaged
            try:
                return self.dataset[index]
            except DamagedImageError as error:
                self.quarantine.note(index, error)
            index = (index + 1) % len(self)
