"""Small pictures of a few held-out images, for a person to look at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from vitcompress.stages.images.sources import StreamSplit

SIDE = 96
"""Longest side, pixels."""
STREAM_READ = 5000
"""Images of a source that can only be read in order that are read once more, at most, to find those to be shown."""


def suffix() -> str:
    """Return ``.webp``, or ``.png`` with a Pillow that was built without WebP."""
    return ".webp" if features.check("webp") else ".png"


def thumbnail(image: Image.Image) -> bytes:
    """Return the whole image with its longest side at most ``SIDE``, as a file of ``suffix()``.

    Images of less than half that side are enlarged by a whole number without smoothing, to be seen as they are.
    """
    small = image.convert("RGB")
    times = SIDE // max(small.size)
    if times >= 2:
        small = small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)
    elif max(small.size) > SIDE:
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if suffix() == ".webp":
        small.save(file, "WEBP", lossless=times >= 2, quality=80)
    else:
        small.save(file, "PNG", optimize=True)
    return file.getvalue()


def thumbnails(split: Any, positions: Sequence[int], labels: NDArray[np.integer[Any]]) -> tuple[dict[int, bytes], str]:
    """Return thumbnails of the images at ``positions``, opening only those; and why some are missing, or ''.

    A source that can only be read in order is read anew from its start to the last of them, for ``STREAM_READ``
    images at most.

    Args:
        split: a Split or a StreamSplit.
        positions: in the split.
        labels: class of every image in the first pass, ``[N]``; a stream that gives another class at a position comes
            in another order this time, and is not trusted further.

    Raises:
        DataError: an image cannot be read.
    """
    if not isinstance(split, StreamSplit):
        return {position: thumbnail(split[position][0]) for position in positions}, ""
    wanted, made = set(positions), {}
    last = min(max(wanted, default=-1), STREAM_READ - 1)
    for position, (image, label) in zip(range(last + 1), split, strict=False):
        if label != labels[position]:
            return {}, "the source does not give its images in the same order twice, so that none can be shown"
        if position in wanted:
            made[position] = thumbnail(image)
    if wanted - made.keys():
        return made, f"the source can only be read in order; pictures are of its first {STREAM_READ:,} images"
    return made, ""
