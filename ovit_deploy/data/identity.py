"""What tells one data set from another: sizes, classes, and a few images down to their pixels."""

import hashlib
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ovit_deploy.data.sources import ImageData

_LOOKED_AT = 32


def identity(data: ImageData) -> dict[str, Any]:
    """For a fingerprint: the same images in another order are another data set; not every image is looked at."""
    return {
        "name": data.name,
        "classes": list(data.classes),
        "training images": len(data.train),  # type: ignore[arg-type]
        "training sha256": _sha256(data.train),
        "test images": len(data.test),  # type: ignore[arg-type]
        "test sha256": _sha256(data.test),
    }


def _sha256(dataset: Dataset[Any]) -> str:
    """Over labels, sizes and pixels of images spread evenly."""
    total = len(dataset)  # type: ignore[arg-type]
    found = hashlib.sha256()
    for index in np.unique(np.linspace(0, total - 1, min(total, _LOOKED_AT)).astype(int)).tolist():
        image, label = dataset[index]
        found.update(f"{label} {image.mode} {image.size} ".encode() + image.tobytes())
    return found.hexdigest()
