"""One preprocessing spec for evaluation, export, prediction and serving, applied with Pillow and numpy alone.

It reproduces timm's evaluation transform (resize the shorter side to ``size / crop_pct``, centre crop, scale to
[0, 1], normalise) to the last bit of the resized pixels; a test holds the two together. A single implementation
matters: evaluating with another model's mean, std or crop silently costs accuracy (timm issue #2463).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

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

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})


class PreprocessSpec(Record):
    """How an image file becomes the model's input tensor ``[3, size, size]``, float32, RGB."""

    size: int
    """Side of the square input, pixels."""
    crop_pct: float = 1.0
    """Share of the resized image's shorter side that the centre crop keeps, in (0, 1]."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    """Pillow resampling filter of the resize."""
    mean: tuple[float, float, float]
    """Per-channel mean subtracted after scaling to [0, 1]."""
    std: tuple[float, float, float]
    """Per-channel standard deviation divided by afterwards."""

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resized and cropped pixels, uint8 ``[size, size, 3]``."""
        image = image.convert("RGB")
        width, height = image.size
        short_target = math.floor(self.size / self.crop_pct)
        if width <= height:
            target = (short_target, int(short_target * height / width))
        else:
            target = (int(short_target * width / height), short_target)
        if (width, height) != target:
            image = image.resize(target, _RESAMPLING[self.interpolation])
        left = round((target[0] - self.size) / 2)
        top = round((target[1] - self.size) / 2)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)), dtype=np.uint8)

    def apply(self, image: Image.Image) -> NDArray[np.float32]:
        """The model's input for one image, float32 ``[3, size, size]``."""
        scaled = self.pixels(image).astype(np.float32) / np.float32(255)
        mean = np.asarray(self.mean, dtype=np.float32)
        std = np.asarray(self.std, dtype=np.float32)
        return np.ascontiguousarray(((scaled - mean) / std).transpose(2, 0, 1))


def open_image(path: Path) -> Image.Image:
    """A fully decoded RGB image.

    Raises:
        DataError: the file is missing, or is no image that Pillow can decode.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16"):  # Pillow's own conversion cuts 16 bits off at 255, almost all of it white
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise DataError(f"image {path} does not exist; check the path.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"image {path} cannot be read ({error}); replace or remove the file.") from error
