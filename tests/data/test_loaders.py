from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from ovit_deploy.data import (
    Preprocessing,
    calibration_batches,
    eval_loader,
    load_data,
    sample_images,
    train_batches,
    train_loader,
)
from ovit_deploy.data.order import EpochOrder, StepDraws
from ovit_deploy.data.sources import ArrayImages
from ovit_deploy.errors import DataError
from ovit_deploy.recipe.augmentation import PRESETS
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
    first, again = (train_batches(train_loader(data.train, SMALL, training)) for _ in range(2))
    assert torch.equal(next(first)[1], next(again)[1])
    second_epoch = train_batches(train_loader(data.train, SMALL, training), first_step=100)
    assert not torch.equal(next(train_batches(train_loader(data.train, SMALL, training)))[1], next(second_epoch)[1])


def test_every_image_is_drawn_once_an_epoch() -> None:
    order = EpochOrder(10, seed=1)
    order.set_epoch(3)
    assert sorted(draw.index for draw in order) == list(range(10))
    assert [draw.position for draw in order] == list(range(10))


def test_repeated_augmentation_draws_a_third_of_the_images_three_times() -> None:
    order = EpochOrder(9, seed=1, repeats=3)
    assert sorted(Counter(draw.index for draw in order).values()) == [3, 3, 3]
    assert len(order) == 9


@pytest.mark.parametrize("step", [1, 3, 4, 9])
def test_the_step_alone_says_what_comes(data, step) -> None:
    """Whatever was drawn before, by whom, and with a generator in which state."""
    few = Subset(data.train, range(40))
    policy = Augmentation(rand_augment="rand-m9-mstd0.5-inc1", erasing=0.5, erasing_mode="pixel")
    training = Training(batch_size=10, seed=2, augmentation=policy)
    whole = list(islice(train_batches(train_loader(few, SMALL, training)), step + 2))
    torch.manual_seed(99)
    later = list(islice(train_batches(train_loader(few, SMALL, training), first_step=step), 2))
    for (images, labels), (same_images, same_labels) in zip(whole[step:], later, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_an_image_is_augmented_differently_each_epoch(data) -> None:
    few = Subset(data.train, [0])
    training = Training(batch_size=1, augmentation=Augmentation(crop_padding=4))
    (first, _), (second, _) = islice(train_batches(train_loader(few, SMALL, training)), 2)
    assert not torch.equal(first, second)


def test_accumulated_batches_are_fed_together(data) -> None:
    training = Training(batch_size=10, accumulation_steps=3)
    loader = train_loader(Subset(data.train, range(70)), SMALL, training)
    assert len(loader) == 2
    assert [len(labels) for _, labels in loader] == [30, 30]


@pytest.mark.parametrize(("batch", "num_ranks"), [(8, 1), (8, 2), (8, 4), (6, 2), (6, 3), (5, 5)])
def test_ranks_share_each_step_without_gap_or_overlap(batch, num_ranks) -> None:
    """And where each takes an even number, it has both images of every pair that mixup mixes."""
    order = EpochOrder(3 * batch + 1, seed=1)
    order.set_epoch(2)
    whole = list(order)
    ranks = [list(StepDraws(order, batch, rank=rank, num_ranks=num_ranks)) for rank in range(num_ranks)]
    for step, shares in enumerate(zip(*ranks, strict=True)):
        draws = whole[step * batch : (step + 1) * batch]
        assert sorted(draw for share in shares for draw in share) == draws
        for share in shares if batch // num_ranks % 2 == 0 else ():
            places = [draws.index(draw) for draw in share]
            assert [first + last for first, last in zip(places, reversed(places), strict=True)] == [batch - 1] * len(
                share
            )
    assert len(ranks[0]) == 3


def test_a_step_that_cannot_be_shared_evenly_is_an_error(data) -> None:
    with pytest.raises(DataError, match="the 10 images of a step cannot be shared evenly by 4 processes"):
        train_loader(data.train, SMALL, Training(batch_size=10), num_ranks=4)
    mixed = Training(batch_size=10, augmentation=Augmentation(mixup=0.2))
    with pytest.raises(DataError, match="in pairs") as refused:
        train_loader(data.train, SMALL, mixed, rank=1, num_ranks=2)
    assert "a multiple of 4" in refused.value.hint


def test_ranks_evaluate_every_image_once(data) -> None:
    few = Subset(data.test, range(70))
    shares = [list(eval_loader(few, SMALL, 20, rank=rank, num_ranks=3)) for rank in range(3)]
    assert [len(share) for share in shares] == [2, 1, 1]
    found = torch.cat([shares[number % 3][number // 3][0] for number in range(4)])
    assert torch.equal(found, torch.cat([images for images, _ in eval_loader(few, SMALL, 20)]))


def test_other_processes_prepare_the_same_images(data) -> None:
    few = Subset(data.train, range(20))
    training = Training(batch_size=8, augmentation=Augmentation(preset="deit", mixup=0))
    here, there = (
        list(islice(train_batches(train_loader(few, SMALL, training, num_workers=workers), first_step=1), 4))
        for workers in (0, 2)
    )
    for (images, labels), (same_images, same_labels) in zip(here, there, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


class Damaged(ArrayImages):
    def __getitem__(self, index):
        raise DataError(f"image {index} is damaged", "replace it")


def test_an_error_in_another_process_comes_through_as_it_is() -> None:
    damaged = Damaged(np.zeros((2, 4, 4), np.uint8), np.zeros(2))
    with pytest.raises(DataError, match="^image 0 is damaged") as told:
        list(eval_loader(damaged, SMALL, 2, num_workers=1))
    assert told.value.hint == "replace it"


def test_rand_augment_acts_beside_a_padded_crop(data) -> None:
    plain, policy = (
        Augmentation(crop_padding=0, horizontal_flip=0, rand_augment=policy) for policy in (None, "rand-m9-n2-p1.0")
    )
    few = Subset(data.train, range(20))
    images, augmented = (
        next(train_batches(train_loader(few, SMALL, Training(batch_size=20, augmentation=one))))[0]
        for one in (plain, policy)
    )
    assert not torch.equal(images, augmented)


def test_a_batch_larger_than_the_data_is_an_error(data) -> None:
    with pytest.raises(DataError, match="do not fill one batch"):
        train_loader(data.train, SMALL, Training(batch_size=20_000))


@pytest.mark.parametrize("crop", [{}, {"crop_padding": 2}])
@pytest.mark.parametrize("policy", ["rand-m10-n2-p1.0-inc1", "rand-m0-n2-p1.0"])
def test_posterizing_at_either_end_keeps_a_bit(data, policy, crop) -> None:
    training = Training(batch_size=200, augmentation=Augmentation(rand_augment=policy, **crop))
    images, _ = next(train_batches(train_loader(data.train, SMALL, training)))
    assert images.isfinite().all()


@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(crop_padding=2, rand_augment="rand-m5-n2"), *(Augmentation(preset=name) for name in PRESETS)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmented_images_have_the_models_shape(data, augmentation, channels) -> None:
    wanted = Preprocessing((channels, 28, 28), (0.3,) * channels, (0.3,) * channels)
    images, _ = next(iter(train_loader(data.train, wanted, Training(batch_size=8, augmentation=augmentation))))
    assert images.shape == (8, channels, 28, 28)
    assert images.isfinite().all()
