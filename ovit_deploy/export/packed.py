"""A compact container of an ONNX file, from which it comes back bit by bit.

It is a ZIP archive, so that any tool can look into it:

    manifest.json      format, size and SHA-256 of the ONNX file, and where its weights stand in it
    rest               the ONNX file without its weights
    masks              a bit a weight: 1 = kept; each weight tensor begins with a new byte
    values-<w>-<b>     byte b of the kept values that are w bytes wide, one after the other

Weights that have the tensor's empty pattern (0.0, or its most frequent integer, which is the zero point) cost one bit.
The bytes of floats are kept apart because signs and exponents repeat and mantissas do not. Each member is compressed
by LZMA where that pays, and stored as it is where not.
"""

import hashlib
import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from pydantic import BaseModel, ConfigDict, Field

from ovit_deploy import checkpoint
from ovit_deploy.errors import ExportError

SUFFIX = ".packed"
LEAST_BYTES = 256  # smaller tensors stay where they are
LARGEST = 2**31 - 1  # bytes: protobuf reads no larger message, so there is no larger ONNX file
SAMPLE = 2**18  # bytes that tell whether compression pays
PAYS = 0.97
_WIDTHS = (1, 2, 4, 8)
_ILL_FORMED = (  # what zipfile, its decompressors and pydantic say of bytes that are no container
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    KeyError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)


class Region(BaseModel):
    """Values of one tensor in the file: where they begin, how many, how wide in bytes, and the pattern left out."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    start: int = Field(ge=0)
    count: int = Field(ge=0, le=LARGEST)
    width: Literal[1, 2, 4, 8]
    empty: int = Field(ge=0, lt=2**64)


class Manifest(BaseModel):
    """What the archive holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[1] = 1
    size: int = Field(ge=0, le=LARGEST)
    sha256: str
    regions: list[Region]


def pack(content: bytes) -> bytes:
    """The container of the ONNX file ``content``.

    Raises:
        ExportError: it is not ONNX, or its weights are kept in another file.
    """
    regions = _regions(content)
    rest, masks, values = _taken_apart(content, regions)
    manifest = Manifest(size=len(content), sha256=hashlib.sha256(content).hexdigest(), regions=regions)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        _add(members, "manifest.json", json.dumps(manifest.model_dump(), separators=(",", ":")).encode())
        _add(members, "rest", rest)
        _add(members, "masks", masks)
        for width, kept in values.items():
            for place in range(width):
                _add(members, f"values-{width}-{place}", kept.view(np.uint8).reshape(-1, width)[:, place].tobytes())
    packed = archive.getvalue()
    assert unpack(packed) == content
    return packed


def unpack(packed: bytes, name: str = "the container") -> bytes:
    """The ONNX file in a container, bit by bit.

    Args:
        packed: the container.
        name: of its file, for errors.

    Raises:
        ExportError: it is no container, cut off, damaged, or says what is not so.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as members:
            manifest = Manifest.model_validate_json(_read(members, "manifest.json", LARGEST))
            content = _put_together(members, manifest)
    except _ILL_FORMED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"{name}: not a whole container ({reason})", "copy it again, or export again") from error
    if hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise ExportError(f"{name}: its contents are not those it was made of", "copy it again, or export again")
    return content


def pack_file(path: Path) -> Path:
    """Write the container of the ONNX file ``path`` beside it, whole or not at all; its path."""
    packed = path.with_name(path.name + SUFFIX)
    checkpoint.write(packed, pack(path.read_bytes()))
    return packed


def unpack_file(path: Path, output: Path) -> None:
    """Write the ONNX file in the container ``path`` to ``output``, whole or not at all.

    Raises:
        ExportError: the container is damaged, or ``output`` is there and is another file.
    """
    content = unpack(path.read_bytes(), str(path))
    if output.exists() and output.read_bytes() != content:
        raise ExportError(f"{output}: is there already, and is another file", "name another one with --output")
    checkpoint.write(output, content)


def _regions(content: bytes) -> list[Region]:
    """Where the weights stand in the file, in its order."""
    try:
        graph = onnx.ModelProto.FromString(content).graph
    except DecodeError as error:
        raise ExportError(f"not an ONNX file: {error}", "pack what ovit-deploy export wrote") from error
    found, position = [], 0
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ExportError(f"{tensor.name}: its values are in another file", "save the model as one file")
        raw, size = tensor.raw_data, int(np.prod(tensor.dims))
        width = len(raw) // size if size else 0
        start = content.find(raw, position) if len(raw) >= LEAST_BYTES and width in _WIDTHS else -1
        if start >= 0 and width * size == len(raw):
            found.append(Region(start=start, count=size, width=width, empty=_empty(raw, width)))  # pyrefly: ignore
            position = start + len(raw)
    return found


def _empty(raw: bytes, width: int) -> int:
    """The pattern that costs no bytes: all bits zero (0.0), of single bytes the most frequent."""
    return int(np.bincount(np.frombuffer(raw, np.uint8), minlength=256).argmax()) if width == 1 else 0


def _taken_apart(content: bytes, regions: Sequence[Region]) -> tuple[bytes, bytes, dict[int, np.ndarray]]:
    """What is not weights, the bits that say which weights are kept, and those by their width."""
    rest, masks, position = [], [], 0
    values: dict[int, list[np.ndarray]] = {}
    for region in regions:
        stored = np.frombuffer(content, f"<u{region.width}", region.count, region.start)
        kept = stored != region.empty
        rest.append(content[position : region.start])
        masks.append(np.packbits(kept))
        values.setdefault(region.width, []).append(stored[kept])
        position = region.start + stored.nbytes
    rest.append(content[position:])
    return b"".join(rest), b"".join(m.tobytes() for m in masks), {w: np.concatenate(v) for w, v in values.items()}


def _put_together(members: zipfile.ZipFile, manifest: Manifest) -> bytes:
    """The reverse of `_taken_apart`; every size is checked before anything of that size is made."""
    regions = manifest.regions
    weights = sum(region.count * region.width for region in regions)
    rest = io.BytesIO(_read(members, "rest", manifest.size - weights))
    masks = io.BytesIO(_read(members, "masks", sum(-(-region.count // 8) for region in regions)))
    bits = [np.frombuffer(masks.read(-(-region.count // 8)), np.uint8) for region in regions]
    kept = [
        np.unpackbits(packed, count=region.count).astype(bool) for packed, region in zip(bits, regions, strict=True)
    ]
    values = {width: _values(members, width, regions, kept) for width in {region.width for region in regions}}
    parts, position = [], 0
    for region, mask in zip(regions, kept, strict=True):
        before = rest.read(region.start - position) if region.start >= position else b""
        if len(before) != region.start - position:
            raise ValueError("weights stand where there is no room for them")
        tensor = np.full(region.count, region.empty, f"<u{region.width}")
        count = int(mask.sum())
        tensor[mask], values[region.width] = values[region.width][:count], values[region.width][count:]
        parts += [before, tensor.tobytes()]
        position = region.start + tensor.nbytes
    return b"".join([*parts, rest.read()])


def _values(members: zipfile.ZipFile, width: int, regions: Sequence[Region], kept: Sequence[np.ndarray]) -> np.ndarray:
    """All kept values of one width."""
    count = sum(int(mask.sum()) for mask, region in zip(kept, regions, strict=True) if region.width == width)
    planes = [np.frombuffer(_read(members, f"values-{width}-{place}", count), np.uint8) for place in range(width)]
    return np.ascontiguousarray(np.stack(planes, axis=1)).view(f"<u{width}").reshape(-1)


def _add(members: zipfile.ZipFile, name: str, content: bytes) -> None:
    """A member without a date, compressed where a sample of it shrinks."""
    info = zipfile.ZipInfo(name)
    sample = content[:SAMPLE]
    pays = len(lzma.compress(sample, preset=1)) < PAYS * len(sample)
    members.writestr(info, content, zipfile.ZIP_LZMA if pays else zipfile.ZIP_STORED)


def _read(members: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A member; of exactly ``most`` bytes, unless it is the manifest."""
    told = members.getinfo(name).file_size
    if told > most or (name != "manifest.json" and told != most):
        raise ValueError(f"{name} has {told} bytes, not {most}")
    return members.read(name)
