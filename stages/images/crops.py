"""Random crops that decode no more of an image than they need, resized by torchvision's kernels for 8 bits."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms.v2.functional import resize

from vitcompress.core.images import UNREADABLE, rgb
from vitcompress.stages.images.splits import Stored

_SCALES = (8, 4, 2)
"""By which libjpeg's inverse transform gives a smaller image, at a fraction of the cost."""


@dataclass(frozen=True, eq=False)
class StoredCrop:
    """timm's random resized crop, of the same rectangle for the same draws, without decoding more than it needs."""

    crop: RandomResizedCropAndInterpolation

    def __call__(self, image: Stored | Image.Image) -> Image.Image:
        """Return the crop at the input's size, RGB; a DataError is raised if the image cannot be read.

        A JPEG is decoded at 1/2, 1/4 or 1/8 where the crop is at least 2, 4 or 8 times as large as the input; any
        other image is decoded whole. (torchvision's own decoder gives Pillow's bits in four fifths of the time. It is
        not used, since torchvision 0.29 announces that it will be removed.)
        """
        jpeg, found = _opened_jpeg(image), None
        if jpeg is not None:
            height, width = _turned_size(jpeg)
        else:
            found = _decoded(image)
            height, width = _size(found)
        stand_in = torch.empty((3, height, width), dtype=torch.uint8, device="meta")
        top, left, rows, columns = self.crop.get_params(stand_in, self.crop.scale, self.crop.ratio)
        among = self.crop.interpolation
        interpolation = random.choice(among) if isinstance(among, tuple | list) else among  # noqa: S311 - as timm does
        if jpeg is not None:
            found = _reduced(jpeg, min(rows / self.crop.size[0], columns / self.crop.size[1]))
        if found is None:
            found = _decoded(image)
        part = _part(found, _scaled((top, left, rows, columns), (height, width), _size(found)))
        # Of packed pixels the kernel gives packed pixels; of a view into a larger image it takes twice as long.
        small = resize(torch.from_numpy(part).permute(2, 0, 1), list(self.crop.size), interpolation, antialias=True)
        return Image.fromarray(small.permute(1, 2, 0).contiguous().numpy())


def _opened_jpeg(image: Stored | Image.Image) -> Image.Image | None:
    """Return a JPEG whose header was read; None for anything else, damaged headers among it."""
    if not isinstance(image, Stored) or not isinstance(image.content, bytes):
        return None
    try:
        opened = Image.open(io.BytesIO(image.content))
    except UNREADABLE:
        return None
    return opened if opened.format == "JPEG" else None


def _turned_size(jpeg: Image.Image) -> tuple[int, int]:
    """Return height and width of a JPEG once it is turned as its EXIF data says; damaged data says nothing."""
    try:
        orientation = jpeg.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # the parser raises anything
        orientation = None
    width, height = jpeg.size
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def _reduced(jpeg: Image.Image, larger: float) -> Image.Image | None:
    """Return a decoded JPEG, which may come smaller by up to ``larger``; None if it is damaged."""
    scale = next((scale for scale in _SCALES if larger >= scale), 1)
    if scale > 1:
        jpeg.draft("RGB", (jpeg.width // scale, jpeg.height // scale))
    try:
        return rgb(jpeg)
    except UNREADABLE:
        return None


def _decoded(image: Stored | Image.Image) -> Image.Image | NDArray[np.uint8]:
    """Return the whole image; a DataError is raised if it cannot be read."""
    if isinstance(image, Stored):
        return image.content if isinstance(image.content, np.ndarray) else image.decode()
    return image


def _size(image: Image.Image | NDArray[np.uint8]) -> tuple[int, int]:
    """Return height and width."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    return image.shape[0], image.shape[1]


def _part(image: Image.Image | NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Return the pixels ``[h, w, 3]`` from top, left of height and width, in memory of their own."""
    top, left, rows, columns = box
    if isinstance(image, Image.Image):
        return np.array(image.crop((left, top, left + columns, top + rows)))
    return np.array(image[top : top + rows, left : left + columns])


def _scaled(box: tuple[int, int, int, int], full: tuple[int, int], found: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a crop of an image of size ``full`` in one decoded to size ``found``."""
    if full == found:
        return box
    top, left, rows, columns = box
    upper, lower = (round(edge * found[0] / full[0]) for edge in (top, top + rows))
    start, end = (round(edge * found[1] / full[1]) for edge in (left, left + columns))
    return upper, start, lower - upper, end - start
