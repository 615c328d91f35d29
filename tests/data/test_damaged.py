"""Pictures that are damaged or unusual, in real files."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import Dataset

from ovit_deploy.data import Preprocessing, load_data, train_batches, train_loader
from ovit_deploy.data.decode import decode
from ovit_deploy.data.quarantine import Quarantine, WholeImages
from ovit_deploy.errors import DamagedImageError, DataError
from ovit_deploy.recipe.schema import Augmentation, Training

SEEN = Preprocessing((3, 16, 16), (0.5,) * 3, (0.5,) * 3)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def huge() -> bytes:
    """The header of a PNG of 40,000 x 40,000 pixels, as a bomb would have it."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def noise(size: int = 32) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    return Image.fromarray(pixels)


def flipped_bits() -> bytes:
    content = bytearray(png(noise()))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


DAMAGED = {
    "zero bytes": b"",
    "cut": png(noise())[:700],
    "no picture": b"<html>not found</html>",
    "header only": png(noise())[:20],
    "flipped bits": flipped_bits(),
    "huge": huge(),
    "32 bits": None,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_cannot_be_read_is_an_error_that_names_the_file(name, tmp_path) -> None:
    path = tmp_path / "a.png"
    if name == "32 bits":
        path = tmp_path / "a.tif"
        Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    else:
        path.write_bytes(DAMAGED[name])
    with pytest.raises(DamagedImageError, match=rf"{path.name}: cannot be read as an image: \S") as raised:
        decode(path)
    assert raised.value.name == str(path)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(DamagedImageError, match="No such file"):
        decode(tmp_path / "gone.png")


def test_sixteen_bits_of_grey_are_scaled_and_not_cut_off(tmp_path) -> None:
    levels = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    found = np.asarray(decode(tmp_path / "a.png"))
    assert np.array_equal(found, np.arange(256).reshape(16, 16, 1).repeat(3, axis=2))


def test_cmyk_is_read_as_its_colours(tmp_path) -> None:
    Image.new("RGB", (8, 8), (200, 30, 90)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    found = np.asarray(decode(tmp_path / "a.jpg")).reshape(-1, 3)
    assert np.abs(found - np.array((200, 30, 90))).max() < 8


@pytest.mark.parametrize("augmentation", [Augmentation(crop_padding=2), Augmentation(), Augmentation(preset="deit")])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3000, 2)])
def test_pictures_of_one_pixel_and_odd_shapes_can_be_learned_from(size, augmentation) -> None:
    image = Image.new("RGB", size, (9, 9, 9))
    assert SEEN.train_transform(augmentation)(image).shape == SEEN.eval_transform()(image).shape == (3, 16, 16)


class Pictures(Dataset):
    """40 grey pictures that know their number; some cannot be read."""

    def __init__(self, damaged: set[int]) -> None:
        self.damaged = damaged

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index in self.damaged:
            raise DamagedImageError(f"{index}.png", "torn")
        return Image.new("RGB", (16, 16), (index,) * 3), index


def labels_of(pictures: Dataset, num_steps: int, *, first_step: int = 0, num_workers: int = 0) -> list[int]:
    training = Training(batch_size=8, augmentation=Augmentation(crop_padding=0))
    batches = train_batches(train_loader(pictures, SEEN, training, num_workers=num_workers), first_step=first_step)
    return [label for _, (_, labels) in zip(range(num_steps), batches, strict=False) for label in labels.tolist()]


def test_a_damaged_image_is_replaced_by_the_next_and_nothing_else_changes(tmp_path) -> None:
    quarantine = Quarantine(40, 0.1)
    quarantine.keep_in(tmp_path)
    found = labels_of(WholeImages(Pictures({7, 8, 39}), quarantine), 10)
    stand_ins = {7: 9, 8: 9, 39: 0}
    assert found == [stand_ins.get(label, label) for label in labels_of(Pictures(set()), 10)]
    told: list[str] = []
    quarantine.tell(told.append)
    assert len(told) == 3
    assert told[0] == "7.png: cannot be read as an image: torn: left out of training"
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(line["number"] for line in lines) == [7, 8, 39]


def test_data_are_a_function_of_the_step_whatever_was_met_before() -> None:
    whole = WholeImages(Pictures({7, 8, 39}), Quarantine(40, 0.1))
    assert labels_of(whole, 3, first_step=7) == labels_of(whole, 10)[-24:]


def test_what_other_processes_meet_is_told_and_counted(tmp_path) -> None:
    quarantine = Quarantine(40, 0.1)
    quarantine.keep_in(tmp_path)
    labels_of(WholeImages(Pictures({7, 8}), quarantine), 5, num_workers=2)
    assert not quarantine.found
    told: list[str] = []
    quarantine.tell(told.append)
    quarantine.tell(told.append)
    assert len(told) == len(quarantine.found) == 2


@pytest.mark.parametrize("damaged", [range(5), range(40)])
def test_more_than_the_share_is_an_error_that_names_them(damaged) -> None:
    whole = WholeImages(Pictures(set(damaged)), Quarantine(40, 0.1))
    with pytest.raises(DataError, match=r"5 of 40 .* max_damaged_images 0.1 allows 4:(.|\n)*\d\.png: cannot"):
        labels_of(whole, 10)


def test_a_run_that_goes_on_reads_the_list_and_passes_over_a_torn_line(tmp_path) -> None:
    (tmp_path / "quarantine.jsonl").write_text('{"number": 3, "what": "3.png: torn"}\n{"numb')
    quarantine, told = Quarantine(40, 0.1), []
    quarantine.keep_in(tmp_path)
    quarantine.tell(told.append)
    assert (quarantine.found, told) == ({3: "3.png: torn"}, [])


def test_a_damaged_test_image_is_never_passed_over(tmp_path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        noise().save(tmp_path / split / "cat" / "0.png")
    (tmp_path / "val" / "cat" / "1.png").write_bytes(b"")
    with pytest.raises(DamagedImageError, match=r"1\.png"):
        load_data(str(tmp_path)).test[1]
