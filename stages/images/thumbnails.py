"""Small pictures of a few held-out images, for a person to look at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from vitcompress.stages.images.splits import StreamSplit

SIDE = 96
"""Longest side, pixels."""


def thumbnail(image: Any) -> bytes:
    """Return the whole image (of ``open_image``) with its longest side at most ``SIDE``, as a WebP file.

    Of other channels the first three are shown, or the first where there are fewer; 16 bits in 8.
    Images of less than half that side are enlarged by a whole number without smoothing, to be seen as they are.
    """
    if isinstance(image, np.ndarray):
        shown = image[:, :, :3] if image.shape[2] > 2 else image[:, :, 0]
        shown = shown if shown.dtype == np.uint8 else (shown >> 8).astype(np.uint8)
        image = Image.fromarray(np.ascontiguousarray(shown))
    small = image.convert("RGB")
    times = SIDE // max(small.size)
    if times >= 2:
        small = small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)
    else:
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "WEBP", lossless=times >= 2, quality=80)
    return file.getvalue()


def thumbnails(split: Any, positions: Sequence[int]) -> tuple[dict[int, bytes], str]:
    """Return thumbnails of the images at ``positions``, opening only those; and why there are none, or ''.

    A DataError is raised if an image cannot be read.
    """
    if isinstance(split, StreamSplit):
        return {}, "there are no pictures of a source that can only be read in order"
    return {position: thumbnail(split[position][0]) for position in positions}, ""
