"""Data sets: a name or path -> training and test images with their classes.

========================  =====================================================================================
``--data``                what is read
========================  =====================================================================================
(nothing)                 the Fashion-MNIST subset in this package: 10,000 training and 2,000 test images
``fashion-mnist``         all of it: Debian's package ``dataset-fashion-mnist``, else torchvision's download
``images.npz``            CIFAR-style: one WebP or PNG stream a split (``webp_tr``, ``off_tr``, ``y_tr``, ``..._te``)
a folder                  ``train/<class>/*`` and ``val/`` or ``test/<class>/*`` (ImageFolder)
``hfds/<name>``           of the Hugging Face hub or a folder of its files (needs ``datasets``), memory-mapped
``torch/<name>``          torchvision's, such as ``torch/cifar100``
========================  =====================================================================================

The last two are read by timm, which keeps what it downloads in the cache folder. Every image has a number: the order of
training is a function of the seed, so that a run can be resumed, and shared by several processes. What timm reads as a
stream (``wds/``, ``tfds/``, ``hfids/``) is refused.
"""

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm.data
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import FashionMNIST, ImageFolder

from ovit_deploy.catalog import PACKAGE, cache_dir
from ovit_deploy.data.decode import decode
from ovit_deploy.errors import DamagedImageError, DataError

STREAMS = ("wds", "tfds", "hfids")
EMBEDDED = PACKAGE / "assets" / "fashion_mnist_12k.npz"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True)
class ImageData:
    """A data set: items are (PIL image, class index). ``source`` is what `load_data` was asked for."""

    name: str
    train: Dataset[Any]
    test: Dataset[Any]
    classes: tuple[str, ...]
    source: str | None = None

    @property
    def channels(self) -> int:
        """1 for grey images, else 3."""
        image, _ = self.train[0]
        return 1 if image.mode == "L" else 3


class ArrayImages(Dataset[Any]):
    """Images held as one uint8 array [N, H, W] or [N, H, W, 3]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images = images
        self.labels = labels.astype(int).tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]), self.labels[index]


class EncodedImages(Dataset[Any]):
    """Images held as one byte stream: image i is ``stream[offsets[i]:offsets[i + 1]]``."""

    def __init__(self, stream: bytes, offsets: np.ndarray, labels: np.ndarray) -> None:
        self.stream = stream
        self.offsets = offsets.astype(np.int64).tolist()
        self.labels = labels.astype(int).tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        encoded = self.stream[self.offsets[index] : self.offsets[index + 1]]
        return decode(io.BytesIO(encoded), f"image {index}"), self.labels[index]


def load_data(name: str | None = None) -> ImageData:
    """The data set that ``name`` stands for; see the table above.

    Raises:
        DataError: it is missing, corrupt, or has no test split.
    """
    return replace(_load(name), source=name)


def _load(name: str | None) -> ImageData:
    if name is None:
        return _embedded()
    if name == "fashion-mnist":
        return _fashion_mnist()
    path = Path(name)
    if path.suffix == ".npz":
        return _npz(path)
    if path.is_dir():
        return _folder(path)
    if path.is_absolute() or name.startswith((".", "~")) or path.suffix:
        raise DataError(f"{name}: no such folder or file", "--data takes a folder, an .npz file or a data set's name")
    return _timm(name)


def _embedded() -> ImageData:
    with np.load(EMBEDDED) as arrays:
        train = ArrayImages(arrays["train_images"], arrays["train_labels"])
        test = ArrayImages(arrays["test_images"], arrays["test_labels"])
    return ImageData("fashion-mnist-12k", train, test, FASHION_MNIST_CLASSES)


def read_idx(path: Path) -> np.ndarray:
    """The array in a gzipped IDX file of bytes.

    Raises:
        DataError: it is no such file, or cut short.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
        ndim = raw[3]
        shape = np.frombuffer(raw, ">i4", ndim, offset=4)
        return np.frombuffer(raw, np.uint8, int(np.prod(shape)), offset=4 + 4 * ndim).reshape(shape)
    except (gzip.BadGzipFile, EOFError, IndexError, ValueError) as error:
        raise DataError(f"{path}: not a whole IDX file ({error})", "install or download it again") from error


def _fashion_mnist() -> ImageData:
    if DEBIAN_FASHION_MNIST.is_dir():
        train, test = (
            ArrayImages(
                *(
                    read_idx(DEBIAN_FASHION_MNIST / f"{split}-{kind}-ubyte.gz")
                    for kind in ("images-idx3", "labels-idx1")
                )
            )
            for split in ("train", "t10k")
        )
        return ImageData("fashion-mnist", train, test, FASHION_MNIST_CLASSES)
    try:
        train, test = (FashionMNIST(cache_dir() / "data", train=split, download=True) for split in (True, False))
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"Fashion-MNIST cannot be downloaded: {error}", "on Debian: apt install dataset-fashion-mnist"
        ) from error
    return ImageData("fashion-mnist", train, test, FASHION_MNIST_CLASSES)


def _npz(path: Path) -> ImageData:
    try:
        with np.load(path) as arrays:
            classes = tuple(str(name) for name in arrays["names"])
            train, test = (
                EncodedImages(arrays[f"webp_{s}"].tobytes(), arrays[f"off_{s}"], arrays[f"y_{s}"]) for s in ("tr", "te")
            )
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file", "check the path given to --data") from error
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a data set of this form ({error})", "see ovit_deploy/data/sources.py") from error
    return ImageData(path.stem, train, test, classes)


def _folder(path: Path) -> ImageData:
    test = next((path / name for name in ("val", "test", "validation") if (path / name).is_dir()), None)
    if test is None or not (path / "train").is_dir():
        raise DataError(
            f"{path}: no train/ with val/ or test/ in it", "put images into train/<class>/ and val/<class>/"
        )
    try:
        train, tested = (ImageFolder(str(folder), loader=decode) for folder in (path / "train", test))
    except FileNotFoundError as error:
        raise DataError(f"{path}: {error}", "put images into train/<class>/ and val/<class>/") from error
    if train.classes != tested.classes:
        different = sorted(set(train.classes) ^ set(tested.classes))
        raise DataError(
            f"{path}: train and {test.name} differ in classes {', '.join(different[:5])}", "give both the same"
        )
    return ImageData(path.name, train, tested, tuple(train.classes))


class ReaderImages(Dataset[Any]):
    """What a timm reader reads. timm's own data set takes another image where one cannot be read; here it is named."""

    def __init__(self, reader: Any) -> None:
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        name = f"{self.reader.filename(index)} (number {index})"
        try:
            stream, label, *_ = self.reader[index]
        except OSError as error:
            raise DamagedImageError(name, error.strerror or str(error)) from error
        with stream:
            return decode(stream, name), int(label)


def _timm(name: str) -> ImageData:
    kind = name.partition("/")[0].lower()
    if kind in STREAMS:
        raise DataError(
            f"{name}: {kind}/ is read as a stream, but images are taken by their number here",
            "take the same images from the hub as hfds/<name>, or unpack them into train/<class>/ and val/<class>/",
        )
    train, test = _split(name, "train"), _split(name, "validation", "test")
    return ImageData(name, train, test, _classes(train))


def _split(name: str, *splits: str) -> Dataset[Any]:
    """The first of ``splits`` that there is."""
    errors: list[Exception] = []
    for split in splits:
        try:
            dataset = timm.data.create_dataset(name, root=str(cache_dir() / "data"), split=split, download=True)
            return ReaderImages(dataset.reader) if isinstance(dataset, timm.data.ImageDataset) else dataset
        except Exception as error:  # timm's readers raise whatever their libraries do
            errors.append(error)
    told = (str(errors[0]).splitlines() or [type(errors[0]).__name__])[0]
    raise DataError(
        f"{name}: timm cannot make this data set: {told}",
        "check the name, the network, and that datasets is installed for hfds/ (pip install datasets)",
    ) from errors[0]


def _classes(dataset: Any) -> tuple[str, ...]:
    """Class names in the order of their indices, from whichever attribute the reader keeps them in."""
    reader = getattr(dataset, "reader", dataset)
    by_name = getattr(reader, "class_to_idx", None) or getattr(dataset, "class_to_idx", None)
    first = {index: name for name, index in reversed(by_name.items())} if by_name else {}  # ImageNet has synonyms
    names: Sequence[str] | None = [first[index] for index in sorted(first)] or getattr(dataset, "classes", None)
    if not names:
        raise DataError("the data set does not tell its classes", "use a folder of images, one folder a class")
    return tuple(str(name) for name in names)
