import numpy as np
import pytest
import torch

from ovit_deploy.data import Preprocessing, calibration_batches, load_data, sample_images, train_loader
from ovit_deploy.errors import DataError
from ovit_deploy.recipe.schema import Augmentation, Training

SMALL = Preprocessing((1, 28, 28), (0.286,), (0.353,))


@pytest.fixture(scope="module")
def data():
    return load_data()


def test_evaluation_sees_the_pixels_themselves_normalised(data) -> None:
    images, labels = sample_images(data.test, SMALL, 5)
    image, label = data.test[0]
    expected = (torch.from_numpy(np.asarray(image).copy()) / 255 - 0.286) / 0.353
    assert torch.allclose(images[0, 0], expected, atol=1e-6)
    assert labels[0] == label


def test_calibration_is_the_same_images_at_every_call(data) -> None:
    batches = calibration_batches(data.train, SMALL, 100, seed=3)
    first, second = (torch.cat([images for images, _ in batches()]) for _ in range(2))
    assert torch.equal(first, second)
    assert len(first) == 100


def test_more_calibration_images_than_there_are_is_an_error(data) -> None:
    with pytest.raises(DataError, match="10001 gradients asked for, 10000"):
        calibration_batches(data.train, SMALL, 10_001, seed=0)


def test_training_order_follows_the_seed_and_changes_each_epoch(data) -> None:
    training = Training(batch_size=100, seed=5)
    first, again = (iter(train_loader(data.train, SMALL, training)) for _ in range(2))
    assert torch.equal(next(first)[1], next(again)[1])
    loader = train_loader(data.train, SMALL, training)
    assert not torch.equal(next(iter(loader))[1], next(iter(loader))[1])


def test_a_batch_larger_than_the_data_is_an_error(data) -> None:
    with pytest.raises(DataError, match="do not fill one batch"):
        train_loader(data.train, SMALL, Training(batch_size=20_000))


@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(crop_padding=2), Augmentation(rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmented_images_have_the_models_shape(data, augmentation, channels) -> None:
    wanted = Preprocessing((channels, 28, 28), (0.3,) * channels, (0.3,) * channels)
    images, _ = next(iter(train_loader(data.train, wanted, Training(batch_size=8, augmentation=augmentation))))
    assert images.shape == (8, channels, 28, 28)
    assert images.isfinite().all()
