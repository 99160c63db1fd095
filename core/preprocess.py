"""One preprocessing spec for evaluation, export, prediction and serving, applied with Pillow and numpy alone.

It reproduces timm's evaluation transform (resize to ``size / crop_pct``, centre crop, scale to [0, 1], normalise) to
the last bit of the resized pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitcompress.core.images import Bits, Channels
from vitcompress.core.record import Record

CropMode = Literal["center", "squash"]
Input = Literal["float", "uint8"]
"""What a model takes: normalised float32 ``[B, C, S, S]``, or pixels, uint8 ``[B, S, S, C]``; C is 3 for RGB."""


class PreprocessSpec(Record):
    """How an image file becomes the model's input."""

    # Trained networks do not depend on it, and an export record names it for each artifact.
    volatile: ClassVar[frozenset[str]] = frozenset({"input"})
    later: ClassVar[frozenset[str]] = frozenset({"bits"})

    size: int
    """Side of the square input, pixels."""
    crop_pct: float = 1.0
    """Share of the resized image's shorter side that the centre crop keeps, in (0, 1]."""
    crop_mode: CropMode = "center"
    """What is resized to ``size / crop_pct``: the shorter side, keeping the aspect ratio (center), or both (squash)."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    """Pillow resampling filter of the resize."""
    mean: tuple[float, ...]
    """Per-channel mean subtracted after scaling to [0, 1]; one number for each of the C channels."""
    std: tuple[float, ...]
    """Per-channel standard deviation divided by afterwards."""
    bits: Bits = 8
    """Bits of a pixel in one channel; 16 are kept, as float32 from 0 to 65535, and ``input`` is then float."""
    input: Input = "float"
    """What ``apply`` gives; with ``uint8`` the model itself scales and normalises, by ``mean`` and ``std``."""
    exif_orientation: Literal[True] = True
    """A file is turned as its EXIF data says."""
    transparency: Literal["white"] = "white"
    """Transparent pixels are laid on white. Both for readers of ``preprocess.json``; ``open_image`` does it."""

    @property
    def channels(self) -> int:
        """C, the number of channels."""
        return len(self.mean)

    @property
    def pixel(self) -> Channels:
        """What a pixel consists of, as ``open_image`` takes it."""
        return Channels(self.channels, self.bits)

    def pixels(self, image: Image.Image | NDArray[Any]) -> NDArray[Any]:
        """Return resized and cropped pixels ``[size, size, C]``: uint8, or of 16 bits float32 from 0 to 65535.

        ``image`` is as ``open_image`` gives it. Every channel is resized by itself, in its own depth.
        """
        if isinstance(image, np.ndarray):
            layers = (np.ascontiguousarray(image[:, :, channel]) for channel in range(self.channels))
            kind = np.uint8 if self.bits == 8 else np.float32
            found = np.stack([self._cropped(Image.fromarray(layer.astype(kind, copy=False))) for layer in layers], -1)
            return found if self.bits == 8 else found.clip(0, 65535)
        mode = "L" if self.channels == 1 else "RGB"
        return np.atleast_3d(self._cropped(image if image.mode == mode else image.convert(mode)))

    def _cropped(self, image: Image.Image) -> NDArray[Any]:
        target = self._resized(*image.size)
        if image.size != target:  # whole, even of a long strip: resize(box=...) of the crop alone rounds differently
            image = image.resize(target, Image.Resampling[self.interpolation.upper()])
        left = round((target[0] - self.size) / 2)
        top = round((target[1] - self.size) / 2)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        short = math.floor(self.size / self.crop_pct)
        if self.crop_mode == "squash":
            return short, short
        if width <= height:
            return short, int(short * height / width)
        return int(short * width / height), short

    def apply(self, image: Image.Image | NDArray[Any]) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Return the model's input for one image: float32 ``[C, size, size]``, or uint8 ``[size, size, C]``."""
        return self.prepared(self.pixels(image))

    def prepared(self, pixels: NDArray[Any]) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Return the model's input of what ``pixels`` gave; shapes as of ``apply``."""
        if self.input == "uint8":
            return pixels.copy()  # Pillow's own memory is read-only
        prepared = np.empty((self.channels, *pixels.shape[:2]), dtype=np.float32)
        if self.bits == 16:
            mean, std = (np.asarray(values, dtype=np.float32) for values in (self.mean, self.std))
            prepared[:] = ((pixels / np.float32(65535) - mean) / std).transpose(2, 0, 1)
            return prepared
        for channel, levels in enumerate(_levels(self.mean, self.std)):
            np.take(levels, pixels[:, :, channel], out=prepared[channel], mode="clip")  # clip: no check of indices
        return prepared


@lru_cache(maxsize=16)
def _levels(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """Return what each of the 256 levels becomes, scaled to [0, 1] and normalised: float32 ``[C, 256]``.

    Looking pixels up takes a quarter of the time of computing each, for the same bits.
    """
    scaled = np.arange(256, dtype=np.float32) / np.float32(255)
    own_mean, own_std = (np.asarray(values, dtype=np.float32)[:, None] for values in (mean, std))
    return np.asarray((scaled - own_mean) / own_std)
