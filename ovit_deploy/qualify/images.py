"""Made-up images: each class is a smooth pattern of its own, each image that pattern under noise."""

import numpy as np

from ovit_deploy.data import ImageData
from ovit_deploy.data.sources import ArrayImages

NUM_CLASSES = 10
_COARSE = 4


def made_up(*, num_train: int, num_test: int, size: int, seed: int) -> ImageData:
    """Colour images of ``size`` x ``size`` pixels in ten classes."""
    draw = np.random.default_rng(seed)
    patterns = draw.uniform(0, 255, (NUM_CLASSES, _COARSE, _COARSE, 3))
    repeats = -(-size // _COARSE)
    patterns = patterns.repeat(repeats, axis=1).repeat(repeats, axis=2)[:, :size, :size]

    def some(count: int) -> ArrayImages:
        labels = np.arange(count) % NUM_CLASSES
        noise = draw.normal(0, 40, (count, size, size, 3))
        return ArrayImages((patterns[labels] + noise).clip(0, 255).astype(np.uint8), labels)

    classes = tuple(f"pattern {number}" for number in range(NUM_CLASSES))
    return ImageData("made-up images", some(num_train), some(num_test), classes)
