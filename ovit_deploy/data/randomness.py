"""Chance as a function of where training is: the same seed, epoch and position give the same draws.

Each image and each step seeds the generators anew, so that nothing random depends on what was drawn before: a run that
goes on from any step draws what the uninterrupted one drew, whichever process prepares the images.
"""

import random
from enum import IntEnum

import numpy as np
import torch


class Chance(IntEnum):
    """What is drawn; each has streams of its own."""

    START = 0  # of a run: new weights
    ORDER = 1  # of an epoch: (seed, epoch)
    IMAGE = 2  # augmentation of one draw: (seed, epoch, position)
    STEP = 3  # mixing and drop path of an optimizer step: (seed, step)
    ACTION = 4  # what the actions before a step draw: (seed, step)


def key(what: Chance, *where: int) -> int:
    """A seed of 63 bits for non-negative integers; near ones give unrelated seeds."""
    return int(np.random.SeedSequence((what, *where)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_all(what: Chance, *where: int) -> None:
    """Seed Python's, numpy's and torch's generators, which timm's augmentations and drop path draw from."""
    seed = key(what, *where)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - what timm draws from
    torch.default_generator.manual_seed(seed)  # torch.manual_seed walks the call stack for devices not in use: 0.5 ms
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
