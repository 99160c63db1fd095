"""Images that `compress data pack` decoded once: training pixels in one file, held-out files as they were (torch-free).

DIR/pack.json     what is in it; written last
DIR/index.npy     of each training image: place, size, class and checksum
DIR/pixels.bin    RGB pixels, 8 bits, rows from the top, image after image
DIR/names.txt     where each training image came from, one a line
DIR/val/          the held-out files
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from vitcompress.core.errors import DataError
from vitcompress.core.files import read_object, sha256_of
from vitcompress.core.images import READING
from vitcompress.core.record import Record
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources.folder import open_inside, read_inside
from vitcompress.stages.images.sources.source import Source
from vitcompress.stages.images.splits import PER_IMAGE, Images, ListedSplit
from vitcompress.stages.images.tree import tree_digest

MANIFEST, INDEX, PIXELS, NAMES, HELD_OUT = "pack.json", "index.npy", "pixels.bin", "names.txt", "val"
FORMAT = 1
ENTRY = np.dtype([("at", "<i8"), ("height", "<i4"), ("width", "<i4"), ("label", "<i4"), ("crc32", "<u4")])
"""Of one training image: first byte in the file of pixels, size, class, CRC-32 of its bytes; more: ``PER_IMAGE``."""


class Manifest(Record):
    """What a pack holds."""

    format: int
    reading: int
    """``core.images.READING`` of the pixels."""
    source: str
    """The images that were packed."""
    size: int | None
    """Pixels that the shorter side was scaled down to; None: as it was."""
    classes: tuple[str, ...]
    split: str
    """How the held-out images were chosen, in words."""
    images: int
    """Training images."""
    pixel_bytes: int
    index_sha256: str
    held_out: tuple[tuple[str, int, int], ...]
    """Of each held-out file: path inside val/, class and bytes."""


class Pack(Source):
    """A folder with a ``pack.json``."""

    name = "pack"
    is_path = True

    def owns(self, source: str) -> bool:
        """Return whether the folder is a pack."""
        return (Path(source) / MANIFEST).is_file()

    def images(self, config: DataConfig) -> Images:
        """Return both splits; a DataError is raised if the pack is damaged, incomplete or of another version."""
        root = Path(config.source)
        found = _manifest(root)
        train = _Pixels(root, _index(root, found))
        items = list(enumerate(train.index["label"].tolist()))
        more: dict[str, Any] = {
            name: train.index[name] for name in PER_IMAGE if name in (train.index.dtype.names or ())
        }
        held_root = root / HELD_OUT
        held = [(path, label) for path, label, _ in found.held_out]
        return Images(
            found.classes,
            ListedSplit(items, train.image, read=train.pixels, **more),
            ListedSplit(held, partial(open_inside, held_root), held_root, "val/", partial(read_inside, held_root)),
            found.split,
        )

    def state(self, config: DataConfig) -> list[Any]:
        """Return the digests of what is in the manifest, and of the held-out files' names, sizes and times."""
        root = Path(config.source)
        return [sha256_of(root / MANIFEST), tree_digest(root / HELD_OUT)]


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The training images."""

    root: Path
    index: NDArray[np.void]
    """``[N]`` of ``ENTRY``."""

    def pixels(self, number: int) -> NDArray[np.uint8]:
        """Return an image's pixels, ``[H, W, 3]``; a DataError is raised if they are not the ones that were written.

        Read, not mapped: where a mapped file ends too early the system ends the process.
        """
        at, height, width, _, crc32, *_ = self.index[number].item()
        pixels = np.empty((height, width, 3), np.uint8)
        path = self.root / PIXELS
        try:
            file = os.open(path, os.O_RDONLY)
            try:
                count = os.preadv(file, [pixels.data], at)
            finally:
                os.close(file)
        except OSError as error:
            raise DataError(f"file {path} of a pack cannot be read ({error.strerror}); put it back.") from error
        if count != pixels.nbytes or zlib.crc32(pixels.data) != crc32:
            raise _damaged(self.root, f"image {number} ({self._name(number)}) has other pixels than were written")
        return pixels

    def image(self, number: int) -> Image.Image:
        """Return an image; raises as ``pixels`` does."""
        return Image.fromarray(self.pixels(number))

    def _name(self, number: int) -> str:
        try:
            return (self.root / NAMES).read_text().split("\n")[number]
        except (OSError, ValueError, IndexError):
            return "its name is lost"


def _manifest(root: Path) -> Manifest:
    """Return the manifest of a pack that this version reads, its files there and as long as they were written."""
    values = read_object(root / MANIFEST, "the pack", "pack the images again")
    if (values.get("format"), values.get("reading")) != (FORMAT, READING):
        raise DataError(f"pack '{root}' was made by a version that reads images otherwise; pack the images again.")
    try:
        found = Manifest.model_validate(values, strict=False)  # JSON lists become tuples again
    except ValidationError as error:
        raise _damaged(root, f"{MANIFEST} lacks {error.errors()[0]['loc'][0]}") from error
    wanted = {PIXELS: found.pixel_bytes, **{f"{HELD_OUT}/{path}": size for path, _, size in found.held_out}}
    for name, size in wanted.items():
        try:
            there = os.stat(root / name).st_size  # noqa: PTH116 - of a Path it takes twice as long
        except OSError as error:
            raise _damaged(root, f"{name} cannot be looked at ({error.strerror})") from error
        if there != size:
            raise _damaged(root, f"{name} has {there:,} bytes, and {size:,} were written")
    return found


def _index(root: Path, manifest: Manifest) -> NDArray[np.void]:
    """Return the entries of all training images."""
    path = root / INDEX
    try:
        if sha256_of(path) == manifest.index_sha256:
            return np.asarray(np.load(path))
    except OSError as error:
        raise _damaged(root, f"{INDEX} cannot be read ({error.strerror})") from error
    raise _damaged(root, f"{INDEX} is not the file that was written")


def _damaged(root: Path, why: str) -> DataError:
    return DataError(f"pack '{root}' is damaged: {why}; pack the images again, or copy them anew.")
