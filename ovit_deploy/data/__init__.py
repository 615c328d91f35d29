"""Images: where they come from, what a model wants to see of them, and how they are fed."""

from ovit_deploy.data.loaders import calibration_batches, eval_loader, sample_images, train_batches, train_loader
from ovit_deploy.data.preprocessing import Preprocessing
from ovit_deploy.data.randomness import Chance, seed_all
from ovit_deploy.data.sources import ImageData, load_data

__all__ = [
    "Chance",
    "ImageData",
    "Preprocessing",
    "calibration_batches",
    "eval_loader",
    "load_data",
    "sample_images",
    "seed_all",
    "train_batches",
    "train_loader",
]
