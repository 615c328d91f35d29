"""The test images of an export, as its graph wants to see them, with their classes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ovit_deploy.bench.source import Source
from ovit_deploy.errors import DataError, ModelError

if TYPE_CHECKING:
    from ovit_deploy.data import ImageData

BATCH_SIZE = 256
Count = int | Literal["all"]


@dataclass(frozen=True)
class Labelled:
    """Images whose classes are known.

    Args:
        images: the data set.
        preprocessing: how the model wants them, as the export's card says it.
        total: test images that the data set has.
        batch: images that the graph takes at a time; None for any number.
        chosen: indices of test images; None for all of them.
    """

    images: "ImageData"
    preprocessing: dict[str, Any]
    total: int
    batch: int | None = None
    chosen: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return self.total if self.chosen is None else len(self.chosen)

    @property
    def name(self) -> str:
        """What they are, in words."""
        of = "" if self.chosen is None else f" of {self.total}"
        return f"{len(self)}{of} test images of {self.images.name}"

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images [N, C, H, W] and their classes [N]."""
        from torch.utils.data import Subset

        from ovit_deploy.data import Preprocessing, eval_loader

        test = self.images.test if self.chosen is None else Subset(self.images.test, self.chosen)
        for batch, labels in eval_loader(test, Preprocessing.from_dict(self.preprocessing), batch_size=BATCH_SIZE):
            yield batch.numpy(), labels.numpy()


def of_export(export: Source, data: str | None = None, *, count: Count = "all", seed: int = 0) -> Labelled:
    """The test images for the first file of ``export``.

    Args:
        export: from ``source.from_file`` or ``source.from_run``.
        data: as ``load_data`` takes it; by default those of the run that the export belongs to.
        count: how many of them, drawn by chance; or all.
        seed: of that draw.

    Raises:
        ModelError: nothing beside the file says how its images are made.
        DataError: the images have other classes, or there are not so many.
    """
    from ovit_deploy.data import load_data

    told = card(export.files[0])
    images = load_data(data or _data_of(export.home))
    if tuple(told["classes"]) != images.classes:
        raise DataError(f"{images.name} has other classes than the model", "give --data with the model's classes")
    batch = told["input"]["batch"] if isinstance(told["input"]["batch"], int) else None
    total = len(images.test)  # type: ignore[arg-type]
    if count == "all" or count == total:
        return Labelled(images, told["preprocessing"], total, batch)
    if count > total:
        raise DataError(f"{images.name} has {total} test images, not {count}", "ask for fewer, or for all")
    chosen = np.random.default_rng(seed).choice(total, count, replace=False)
    return Labelled(images, told["preprocessing"], total, batch, tuple(sorted(chosen.tolist())))


def card(file: Path) -> dict[str, Any]:
    """What an export says of itself.

    Raises:
        ModelError: there is nothing beside the file that says how its images are made.
    """
    try:
        return json.loads((file.parent / "model.json").read_text())
    except (OSError, ValueError) as error:
        reason = "no whole model.json beside it, which says how images are made for it"
        raise ModelError(f"{file}: {reason}", "give what ovit-deploy export wrote") from error


def _data_of(home: Path) -> str | None:
    """The images of the run that an export belongs to, as they were asked for."""
    facts = home / "run.json"
    return json.loads(facts.read_text()).get("data_source") if facts.is_file() else None
