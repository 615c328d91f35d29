"""A picture in a file -> RGB with 8 bits a channel; what cannot be decoded is an error that names it.

Grey, palette and CMYK pictures are converted by Pillow. 16 bits of grey are scaled to 8 (Pillow would cut them off at
255, and leave a white picture). Pictures of more pixels than Pillow takes for an attack (twice
`PIL.Image.MAX_IMAGE_PIXELS`, about 179 million) are refused.
"""

import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from ovit_deploy.errors import DamagedImageError

# What Pillow's readers raise of damaged files.
DAMAGES = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode(source: str | Path | IO[bytes], name: str | None = None) -> Image.Image:
    """The picture, in RGB.

    Args:
        source: a file, or its name.
        name: what errors call it; by default the file's name.

    Raises:
        DamagedImageError: it cannot be read.
    """
    try:
        with Image.open(source) as image:
            return _with_8_bits(image).convert("RGB")
    except DAMAGES as error:
        raise DamagedImageError(str(source) if name is None else name, _told(error)) from error


def _with_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"32 bits a pixel (mode {image.mode}) have no one meaning; convert it to 8 or 16 bits")
    return image


def _told(error: Exception) -> str:
    """Why, without the file's name or address in memory."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).split(" <_io")[0] if "cannot identify image file" in str(error) else str(error)
