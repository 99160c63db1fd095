"""Image files as 8-bit RGB pixels, the one way in which everything here reads them.

Three things must be decided between what a decoder gives and what a network sees, and be the same in training,
evaluation, prediction and in a bundle's `infer.py` (``exporters/bundle/infer.py`` says the same without this module):

- **orientation**: cameras store the sensor's rows and say in the EXIF data how to turn them; images are turned;
- **transparency**: what lies under a transparent pixel is whatever the editor left there, mostly black, and nobody
  ever sees it; images are laid on white, as paper and browsers show them;
- **depth**: 16 bits are scaled to 8, and pixels that do not say what is black and what is white are refused.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vitcompress.core.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
READING = 2
"""Raised when the same file gives other pixels: it is in the data's record, so what was computed of the earlier pixels
is not taken for results of the new ones."""

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,  # sizes that overflow
    EOFError,
    MemoryError,  # sizes that no machine holds
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on damaged, absurd or foreign files."""


class ImageError(DataError):
    """An image that cannot be used."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message
        """Why, without the file's name."""


def open_image(path: Path) -> Image.Image:
    """Return a fully decoded RGB image; an ImageError is raised where the file is missing or ``rgb`` fails."""
    with _opened(path) as image:
        return rgb(image)


def as_rgb(image: Any, what: str) -> Image.Image:
    """Return an image of a foreign dataset, or its bytes, read as files are; ``what`` it is, is for a DataError."""
    try:
        return rgb(Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image)
    except UNREADABLE as error:
        raise DataError(f"{what} cannot be read ({reason_of(error)}); remove it.") from error


def check_header(path: Path) -> None:
    """Raise an ImageError for what is wrong with an image without decoding it."""
    with _opened(path) as image:
        _require_scale(image)


def rgb(image: Image.Image) -> Image.Image:
    """Return 8-bit RGB of an image as Pillow opened it; may turn ``image`` itself.

    One of ``UNREADABLE`` is raised where decoding fails, or its pixels do not say what is black and what is white.
    """
    _require_scale(image)
    image.load()
    _turn(image)
    if image.mode[0] == "I":
        return _eight_bits(image)
    if image.getbands()[-1] not in "Aa" and "transparency" not in image.info:
        return image if image.mode == "RGB" else image.convert("RGB")  # which copies: half the time of a large JPEG
    layer = image.convert("RGBA")
    flat = Image.new("RGB", image.size, "white")
    flat.paste(layer, mask=layer)
    return flat


def reason_of(error: BaseException) -> str:
    """Return why an image cannot be used, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known kind"
    found = re.match(r"Image size \((\d+) pixels\) exceeds limit of (\d+) pixels", str(error))
    if found:
        size, limit = (int(number) / 1e6 for number in found.groups())
        return f"it has {size:,.0f} megapixels, more than the {limit:,.0f} that are decoded; scale it down"
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Yield the image, not decoded yet; an error of its decoder becomes an ImageError that names the file."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise ImageError(f"image {path} does not exist; check the path.", "it does not exist") from error
    except UNREADABLE as error:
        reason = reason_of(error)
        raise ImageError(f"image {path} cannot be read ({reason}); replace or remove the file.", reason) from error


def _turn(image: Image.Image) -> None:
    """Turn and mirror a decoded image as its EXIF data says; damaged data says nothing."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # the parser raises anything
        return


def _require_scale(image: Image.Image) -> None:
    if image.mode == "F":
        raise _no_scale("32-bit floating-point values")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as RGB in eight bits; Pillow's own conversion cuts off at 255, almost all of it white.

    Mode I is 32 bits wide, but also what some 16-bit files open as: a PNG (by older Pillows) and PGM always are, of
    other formats those whose values say so. Values up to 255 do not: as 16 bits they would all be black.
    """
    values = np.asarray(image)
    if image.mode == "I":
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535 or (high < 256 and image.format not in ("PNG", "PPM")):
            raise _no_scale(f"32-bit values from {low} to {high}")
    grey = (values >> 8).astype(np.uint8)
    if isinstance(image.info.get("transparency"), int):
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey).convert("RGB")


def _no_scale(what: str) -> ValueError:
    return ValueError(f"{what} do not say what is black and what is white; convert it to 8 bits per channel")
