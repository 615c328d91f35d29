import gzip
import io

import numpy as np
import pytest
from PIL import Image
from timm.data.readers import create_reader

from ovit_deploy.assets.build import choose
from ovit_deploy.data import load_data
from ovit_deploy.data.sources import DEBIAN_FASHION_MNIST, EMBEDDED, ReaderImages, read_idx
from ovit_deploy.errors import DataError


def picture(color: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (color, 0, 0))


def folder_of_images(root, splits=("train", "val")):
    for split in splits:
        for number, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            picture(number * 100).save(root / split / name / "0.png")
    return root


def test_the_embedded_images_are_balanced_and_small() -> None:
    data = load_data()
    assert (len(data.train), len(data.test), data.channels) == (10_000, 2_000, 1)
    assert np.bincount(data.train.labels).tolist() == [1000] * 10
    assert np.bincount(data.test.labels).tolist() == [200] * 10
    assert EMBEDDED.stat().st_size <= 6_000_000


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_embedded_images_are_the_seeded_choice_of_the_full_set() -> None:
    full, embedded = load_data("fashion-mnist"), load_data()
    chosen = choose(np.array(full.train.labels), 1000)
    assert np.array_equal(full.train.images[chosen], embedded.train.images)


def test_a_folder_of_images_is_read(tmp_path) -> None:
    data = load_data(str(folder_of_images(tmp_path)))
    assert data.classes == ("cat", "dog")
    assert [label for _, label in data.test] == [0, 1]
    assert data.channels == 3


def test_a_corrupt_image_is_named(tmp_path) -> None:
    folder_of_images(tmp_path)
    (tmp_path / "val" / "dog" / "0.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"0\.png: cannot be read as an image"):
        load_data(str(tmp_path)).test[1]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/nowhere/images", "no such folder"),
        ("./missing.npz", "no such file"),
        ("torch/no_such_dataset", "timm cannot make"),
    ],
)
def test_missing_data_are_told(name, told, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVIT_DEPLOY_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=told):
        load_data(name)


def test_a_hugging_face_data_set_is_read_by_number(tmp_path, monkeypatch) -> None:
    pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setenv("OVIT_DEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    data = load_data(f"hfds/{folder_of_images(tmp_path / 'images', ('train', 'test'))}")
    image, label = data.test[1]
    assert (image.getpixel((0, 0)), label, data.classes) == ((100, 0, 0), 1, ("cat", "dog"))


@pytest.mark.parametrize("name", ["wds/imagenet", "tfds/imagenet2012", "HFIDS/timm/imagenet-1k-wds"])
def test_a_stream_is_refused_and_what_to_use_is_told(name) -> None:
    with pytest.raises(DataError, match="read as a stream") as refused:
        load_data(name)
    assert "hfds/" in refused.value.hint


def test_an_image_that_a_reader_cannot_decode_is_named_not_replaced_by_the_next(tmp_path) -> None:
    folder_of_images(tmp_path)
    (tmp_path / "train" / "dog" / "0.png").write_bytes(b"\x89PNG broken")
    images = ReaderImages(create_reader("", root=str(tmp_path / "train")))
    assert images[0][0].getpixel((0, 0)) == (0, 0, 0)
    with pytest.raises(DataError, match=r"0\.png \(number 1\): cannot be read"):
        images[1]


def test_a_folder_without_a_test_split_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="no train/ with val/"):
        load_data(str(folder_of_images(tmp_path, splits=("train",))))


def test_splits_with_different_classes_are_refused(tmp_path) -> None:
    folder_of_images(tmp_path)
    (tmp_path / "val" / "dog").rename(tmp_path / "val" / "cow")
    with pytest.raises(DataError, match="differ in classes cow, dog"):
        load_data(str(tmp_path))


def encoded(images) -> tuple[np.ndarray, np.ndarray]:
    streams = []
    for image in images:
        buffer = io.BytesIO()
        image.save(buffer, "webp", lossless=True)
        streams.append(buffer.getvalue())
    offsets = np.cumsum([0] + [len(stream) for stream in streams]).astype(np.uint32)
    return np.frombuffer(b"".join(streams), np.uint8), offsets


def test_an_archive_of_webp_images_is_read(tmp_path) -> None:
    stream, offsets = encoded([picture(10), picture(200)])
    arrays = {f"{key}_{split}": value for split in ("tr", "te") for key, value in (("webp", stream), ("off", offsets))}
    np.savez(tmp_path / "d.npz", names=np.array(["a", "b"]), y_tr=np.array([0, 1]), y_te=np.array([1, 0]), **arrays)
    data = load_data(str(tmp_path / "d.npz"))
    image, label = data.test[1]
    assert (image.getpixel((0, 0)), label, data.classes) == ((200, 0, 0), 0, ("a", "b"))


def test_an_archive_of_another_form_is_refused(tmp_path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros(3))
    with pytest.raises(DataError, match="not a data set of this form"):
        load_data(str(tmp_path / "d.npz"))


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", gzip.compress(b"\x00\x00\x08\x03\x00\x00\x00\x09", mtime=0)])
def test_a_torn_idx_file_is_refused(tmp_path, content) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a whole IDX file"):
        read_idx(path)
