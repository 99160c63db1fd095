"""The held-out images in one pass: each decoded once, prepared for every model, and known by name and digest.

Importing this takes no torch; ``held_out_batches`` alone reads with its loader.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import DataError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.images.splits import ListedSplit, printable


@dataclass(frozen=True)
class HeldOutBatch:
    """B images, in the split's order."""

    inputs: dict[PreprocessSpec, NDArray[Any]]
    """Of each preprocessing: float32 ``[B, C, S, S]``, or uint8 ``[B, S, S, C]``."""
    labels: NDArray[Any]
    """Class numbers int64 ``[B]``; of several labels float32 ``[B, K]``."""
    pixels: tuple[str, ...]
    """SHA-256 of each image's pixels; empty texts where images are files."""


def prepared(specs: tuple[PreprocessSpec, ...], hashed: bool, image: Any) -> tuple[tuple[NDArray[Any], ...], str]:
    """Return an image (of ``open_image``) through every preprocessing, and, of RGB to be ``hashed``, the SHA-256."""
    resized: dict[tuple[Any, ...], NDArray[Any]] = {}
    inputs = []
    for spec in specs:
        key = (spec.size, spec.crop_pct, spec.crop_mode, spec.interpolation)  # all but scaling: pixels are shared
        if key not in resized:
            resized[key] = spec.pixels(image)
        inputs.append(spec.prepared(resized[key]))
    if not hashed:
        return tuple(inputs), ""
    width, height = image.size
    return tuple(inputs), hashlib.sha256(f"{width}x{height}\n".encode() + image.convert("RGB").tobytes()).hexdigest()


def held_out_batches(
    split: Any, specs: Sequence[PreprocessSpec], *, batch_size: int, workers: int
) -> Iterator[HeldOutBatch]:
    """Yield every image once, in order, opened and decoded once whatever the number of (distinct) preprocessings.

    A DataError is raised if an image cannot be read.
    """
    from vitcompress.stages.images.loaders import ordered_loader

    preparation = partial(prepared, tuple(specs), files_root(split) is None)
    for (inputs, pixels), labels in ordered_loader(split, preparation, batch_size=batch_size, workers=workers):
        arrays = [each.numpy() for each in inputs]
        yield HeldOutBatch(dict(zip(specs, arrays, strict=True)), labels.numpy(), tuple(pixels))


def files_root(split: Any) -> Path | None:
    """Return the folder of a split whose images are files."""
    return split.root if isinstance(split, ListedSplit) and len(split) else None


def image_names(split: Any, count: int) -> tuple[str, ...]:
    """Return a name for each of ``count`` images: the path inside the split's folder, or ``image N`` from 0."""
    if files_root(split) is None:
        return tuple(f"image {index}" for index in range(count))
    return tuple(printable(key) for key, _ in split.items[:count])


def class_numbers(labels: NDArray[Any]) -> list[Any]:
    """Return the class of each image, or of several labels ``[N, K]`` a tuple of them."""
    return [tuple(np.flatnonzero(own).tolist()) for own in labels] if labels.ndim == 2 else labels.tolist()


def images_digest(split: Any, classes: Sequence[str], labels: NDArray[Any], pixels: Sequence[str] = ()) -> str:
    """Return a SHA-256 by which two machines know that they judged the same held-out images in the same order.

    Over the names of all classes and, of each image, its class and: where images are files, the path inside the split's
    folder and the size in bytes; elsewhere its width, height and pixels. Modification times and the folder's place do
    not count. A file changed within its size is not noticed; pixels of a JPEG in a streamed source may differ by a bit
    between versions of the decoder, which then counts as another image.

    ``labels`` are the classes ``[N]`` or, of several an image, ``[N, K]``; ``pixels`` are those of ``HeldOutBatch``,
    where images are no files. A DataError is raised if a file is gone.
    """
    digest = hashlib.sha256()
    for name in classes:
        digest.update(f"class {name}\n".encode())
    root = files_root(split)
    try:
        for index, label in enumerate(class_numbers(labels)):
            if root:
                name = split.items[index][0]
                entry = os.fsencode(name) + b"\0%d" % (root / name).stat().st_size
            else:
                entry = pixels[index].encode()
            numbers = ",".join(map(str, label if isinstance(label, tuple) else (label,)))
            digest.update(b"%b\0%b\n" % (numbers.encode(), entry))
    except OSError as error:
        raise DataError(f"image {error.filename} cannot be looked at ({error.strerror}); put it back.") from error
    return digest.hexdigest()
