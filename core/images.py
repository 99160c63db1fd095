"""Image files as 8-bit RGB pixels, or as any channels of 8 or 16 bits, the one way in which all here reads them.

Three things must be decided between what a decoder gives and what a network sees, and be the same in training,
evaluation, prediction and in a bundle's `infer.py` (``exporters/bundle/infer.py`` says the same without this module):

- **orientation**: cameras store the sensor's rows and say in the EXIF data how to turn them; images are turned;
- **transparency**: what lies under a transparent pixel is whatever the editor left there, mostly black, and nobody
  ever sees it; images are laid on white, as paper and browsers show them;
- **depth**: 16 bits are scaled to 8, and pixels that do not say what is black and what is white are refused.

Where other channels are asked for, or 16 bits (``Channels``), a file holds just these, and they are turned alone.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from vitcompress.core.errors import DataError
from vitcompress.core.words import counted

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
Bits = Literal[8, 16]
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


class Channels(NamedTuple):
    """What a pixel of an image consists of."""

    number: int = 3
    bits: Bits = 8

    @property
    def plain(self) -> bool:
        """Whether images are 8-bit RGB, or grey, which is made of RGB: all formats, sources and augmentations do."""
        return self.bits == 8 and self.number in (1, 3)

    @property
    def words(self) -> str:
        """Return it in words."""
        return "RGB" if self == RGB else f"{counted(self.number, 'channel')} of {self.bits} bits"

    @property
    def suffixes(self) -> frozenset[str]:
        """By which files are known as images: NumPy's arrays among them, where they are not ``plain``."""
        return IMAGE_SUFFIXES if self.plain else IMAGE_SUFFIXES | {".npy"}


RGB = Channels()


class ImageError(DataError):
    """An image that cannot be used."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message
        """Why, without the file's name."""


def open_image(path: Path, channels: Channels = RGB) -> Any:
    """Return a fully decoded image; an ImageError is raised where the file is missing or cannot be used.

    It is Pillow's, RGB, where ``channels`` are ``plain`` (``PreprocessSpec.pixels`` makes grey of it), else an array
    ``[H, W, C]``, uint8 or uint16.
    """
    with _named(path):
        if not channels.plain:
            return _planes(path, channels)
        with Image.open(path) as image:
            return rgb(image)


def as_rgb(image: Any, what: str) -> Image.Image:
    """Return an image of a foreign dataset, or its bytes, read as files are; ``what`` it is, is for a DataError."""
    try:
        return rgb(Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image)
    except UNREADABLE as error:
        raise DataError(f"{what} cannot be read ({reason_of(error)}); remove it.") from error


def check_header(path: Path, channels: Channels = RGB) -> None:
    """Raise an ImageError for what is wrong with an image without decoding it; pictures of own channels are decoded."""
    with _named(path):
        if not channels.plain:
            _planes(path, channels, decode=False)
            return
        with Image.open(path) as image:
            _require_scale(image)


def _planes(path: Path, channels: Channels, decode: bool = True) -> NDArray[Any]:
    """Return the channels of a file, ``[H, W, C]``, uint8 or uint16; one of ``UNREADABLE`` is raised for other ones."""
    found: NDArray[Any]
    if path.suffix.lower() == ".npy":
        found = np.lib.format.open_memmap(path, mode="r")  # its header, and whether the file is as long as it says
        pixels, limit = int(np.prod(found.shape[:2])), 2 * (Image.MAX_IMAGE_PIXELS or 0)
        if 0 < limit < pixels:  # as Pillow refuses other files
            raise Image.DecompressionBombError(f"Image size ({pixels} pixels) exceeds limit of {limit} pixels")
        if decode:  # read: where a mapped file ends too early, the system ends the process
            found = np.load(path, allow_pickle=False)
    else:
        with Image.open(path) as image:
            found = np.dstack([_layers(page, channels.number) for page in ImageSequence.Iterator(image)])
    if found.ndim not in (2, 3) or found.dtype.kind != "u" or found.dtype.itemsize > 2:
        raise ValueError(f"it is {found.dtype} {list(found.shape)}; save uint8 or uint16, [H, W] or [H, W, C]")
    found, bits = np.atleast_3d(found), 8 * found.dtype.itemsize
    if found.shape[2] != channels.number or bits < channels.bits:
        what = f"{counted(found.shape[2], 'channel')} of {bits} bits as it is read here"
        raise ValueError(f"it has {what}, and {channels.words} are asked for (data.channels, data.bits)")
    return (found >> (bits - channels.bits)).astype(f"uint{channels.bits}", copy=False)  # of this machine's byte order


def _layers(page: Image.Image, number: int) -> NDArray[Any]:
    """Return the channels of a picture, or of a page of one, turned as its EXIF data says."""
    page.load()
    _turn(page)
    if number == 4 and (page.getbands()[-1] in "Aa" or "transparency" in page.info):
        page = page.convert("RGBA")
    return _sixteen_bits(page) if page.mode[0] == "I" else np.asarray(page)


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
def _named(path: Path) -> Iterator[None]:
    """Make of an error of a decoder an ImageError that names the file."""
    try:
        yield
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
    values = _sixteen_bits(image)
    grey = (values >> 8).astype(np.uint8)
    if isinstance(image.info.get("transparency"), int):
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey).convert("RGB")


def _sixteen_bits(image: Image.Image) -> NDArray[np.uint16]:
    """Return the values of a 16-bit grey image; a ValueError is raised if they are of 32 bits."""
    values = np.asarray(image)
    if image.mode == "I":
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535 or (high < 256 and image.format not in ("PNG", "PPM")):
            raise _no_scale(f"32-bit values from {low} to {high}")
    return values.astype(np.uint16, copy=False)


def _no_scale(what: str) -> ValueError:
    return ValueError(f"{what} do not say what is black and what is white; convert it to 8 bits per channel")
