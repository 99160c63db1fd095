"""One preprocessing spec for evaluation, export, prediction and serving, applied with Pillow and numpy alone.

It reproduces timm's evaluation transform (resize to ``size / crop_pct``, centre crop, scale to [0, 1], normalise) to
the last bit of the resized pixels; a test holds the two together. A single implementation matters: evaluating with
another model's mean, std or crop silently costs accuracy (timm issue #2463).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import DataError
from core.record import Record

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})

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

CropMode = Literal["center", "squash"]
Input = Literal["float", "uint8"]
"""What a model takes: normalised float32 ``[B, 3, S, S]``, or pixels, uint8 ``[B, S, S, 3]``; RGB."""


class PreprocessSpec(Record):
    """How an image file becomes the model's input."""

    # Trained networks do not depend on it, and an export record names it for each artifact.
    volatile: ClassVar[frozenset[str]] = frozenset({"input"})

    size: int
    """Side of the square input, pixels."""
    crop_pct: float = 1.0
    """Share of the resized image's shorter side that the centre crop keeps, in (0, 1]."""
    crop_mode: CropMode = "center"
    """What is resized to ``size / crop_pct``: the shorter side, keeping the aspect ratio (center), or both (squash)."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    """Pillow resampling filter of the resize."""
    mean: tuple[float, float, float]
    """Per-channel mean subtracted after scaling to [0, 1]."""
    std: tuple[float, float, float]
    """Per-channel standard deviation divided by afterwards."""
    input: Input = "float"
    """What ``apply`` gives; with ``uint8`` the model itself scales and normalises, by ``mean`` and ``std``."""

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resized and cropped pixels, uint8 ``[size, size, 3]``."""
        image = image.convert("RGB")
        target = self._resized(*image.size)
        if image.size != target:  # whole, even of a long strip: resize(box=...) of the crop alone rounds differently
            image = image.resize(target, _RESAMPLING[self.interpolation])
        left = round((target[0] - self.size) / 2)
        top = round((target[1] - self.size) / 2)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)), dtype=np.uint8)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height before the crop, pixels."""
        short = math.floor(self.size / self.crop_pct)
        if self.crop_mode == "squash":
            return short, short
        if width <= height:
            return short, int(short * height / width)
        return int(short * width / height), short

    def apply(self, image: Image.Image) -> NDArray[np.float32] | NDArray[np.uint8]:
        """The model's input for one image: float32 ``[3, size, size]``, or uint8 ``[size, size, 3]``."""
        return self.prepared(self.pixels(image))

    def prepared(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32] | NDArray[np.uint8]:
        """The model's input of what ``pixels`` gave, uint8 ``[size, size, 3]``; shapes as of ``apply``."""
        if self.input == "uint8":
            return pixels.copy()  # Pillow's own memory is read-only
        prepared = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
        for channel, levels in enumerate(_levels(self.mean, self.std)):
            np.take(
                levels, pixels[:, :, channel], out=prepared[channel], mode="clip"
            )  # clip: needs no check of indices
        return prepared


@lru_cache(maxsize=16)
def _levels(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """What each of the 256 levels becomes, scaled to [0, 1] and normalised: float32 ``[3, 256]``.

    Looked up, a picture takes a quarter of the time that computing each of its pixels takes, for the same bits.
    """
    scaled = np.arange(256, dtype=np.float32) / np.float32(255)
    own_mean, own_std = (np.asarray(values, dtype=np.float32)[:, None] for values in (mean, std))
    return np.asarray((scaled - own_mean) / own_std)


def open_image(path: Path) -> Image.Image:
    """A fully decoded RGB image.

    Raises:
        DataError: the file is missing, is no image that Pillow can decode, or does not say what is black and white.
    """
    with _reading(path) as image:
        if image.mode == "I" or image.mode.startswith("I;16"):
            return _from_16_bits(image, path).convert("RGB")
        return image.convert("RGB")


def check_header(path: Path) -> None:
    """What can be told about an image without decoding it.

    Raises:
        DataError: as ``open_image``.
    """
    with _reading(path):
        pass


@contextmanager
def _reading(path: Path) -> Iterator[Image.Image]:
    """The image, opened but not decoded; what goes wrong with it becomes a DataError that names it."""
    try:
        with Image.open(path) as image:
            if image.mode == "F":
                raise _no_scale(path, image.mode, "32-bit floating-point values")
            yield image
    except FileNotFoundError as error:
        raise DataError(f"image {path} does not exist; check the path.") from error
    except UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"image {path} cannot be read ({reason}); replace or remove the file.") from error


def _from_16_bits(image: Image.Image, path: Path) -> Image.Image:
    """Eight bits of 16; Pillow's own conversion cuts off at 255, almost all of it white.

    Mode I is 32 bits wide, but also what some 16-bit files open as: a PNG (by older Pillows) and PGM always are, of
    other formats those whose values say so. Values up to 255 do not: as 16 bits they would all be black.
    """
    if image.mode == "I":
        low, high = image.getextrema()
        if low < 0 or high > 65535 or (high < 256 and image.format not in ("PNG", "PPM")):  # type: ignore[operator]
            raise _no_scale(path, image.mode, f"32-bit values from {low} to {high}")
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _no_scale(path: Path, mode: str, what: str) -> DataError:
    return DataError(
        f"image {path} has {what} (Pillow's mode {mode}), which do not say what is black and what is white; "
        "convert it to 8 bits (or 16, from 0 to 65535) per channel."
    )
