"""Writing a pack (``sources/pack.py``): every image is decoded once, so that training decodes none."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.recfunctions import append_fields
from numpy.typing import NDArray
from PIL import Image
from rich.filesize import decimal

from vitcompress.core.errors import UsageError
from vitcompress.core.files import sha256_of, write_atomic, writing
from vitcompress.core.images import READING
from vitcompress.core.machine import usable_cores
from vitcompress.stages.images.held_out import files_root
from vitcompress.stages.images.sources.pack import ENTRY, FORMAT, HELD_OUT, INDEX, MANIFEST, NAMES, PIXELS, Manifest
from vitcompress.stages.images.splits import PER_IMAGE, Images, StreamSplit, evenly_spread, printable

_LOOKED_AT = 64
"""Images of each split, from whose sizes the room for all of them is estimated."""


def bytes_needed(images: Images, size: int | None) -> int | None:
    """Return about how many bytes a pack takes, by a few images; None of a stream, which gives its images once."""
    train, val = images.train, images.val
    if isinstance(train, StreamSplit) or isinstance(val, StreamSplit):
        return None
    seen, held_out = (evenly_spread(len(split), _LOOKED_AT) for split in (train, val))
    pixels = len(train) * _mean(_scaled(train[at][0], size).size for at in seen)
    if root := files_root(val):
        sizes = [(root / val.items[at][0]).stat().st_size for at in held_out]
        return round(pixels + len(val) * float(np.mean(sizes)))
    return round(pixels + len(val) * _mean(val[at][0].size for at in held_out))


def write_pack(
    images: Images, output: Path, *, source: str, size: int | None, advance: Callable[[], None] = lambda: None
) -> Manifest:
    """Write training images as pixels and held-out ones as files, and return what was written.

    Args:
        images: both splits.
        output: a folder that does not exist or is empty. It appears when everything is in it, and not at all where
            something goes wrong.
        source: what the images are, in words.
        size: pixels that the shorter side is scaled down to, never up; None keeps it. Held-out files keep theirs, so
            that what is judged does not depend on the pack.
        advance: called after each image.

    Raises:
        DataError: an image cannot be read.
        UsageError: the folder is not empty, cannot be written, or does not fit on its disk; images of several classes.
    """
    if images.multilabel:
        raise UsageError(f"images of '{source}' have several classes each, which a pack cannot keep; train on them.")
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(f"output '{output}' is there already; give another folder, or remove it.")
    draft = output.with_name(f".{output.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)  # of a call that was killed
    try:
        with writing(f"pack '{output}'", "a folder that you may write to, on a disk with room"):
            (draft / HELD_OUT).mkdir(parents=True)
            _require_room(images, draft, output, size)
            index = _write_pixels(images.train, draft, size, advance)
            held_out = tuple(_write_held_out(images.val, draft / HELD_OUT, advance))
            found = Manifest(
                format=FORMAT,
                reading=READING,
                source=source,
                size=size,
                classes=images.classes,
                split=images.split,
                images=len(index),
                pixel_bytes=(draft / PIXELS).stat().st_size,
                index_sha256=sha256_of(draft / INDEX),
                held_out=held_out,
            )
            write_atomic(draft / MANIFEST, found.model_dump_json(indent=1) + "\n")
            draft.rename(output)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return found


def _require_room(images: Images, draft: Path, output: Path, size: int | None) -> None:
    needed, free = bytes_needed(images, size), shutil.disk_usage(draft).free
    if needed is not None and needed > free:
        raise UsageError(
            f"pack '{output}' would take about {decimal(needed)}, and its disk has {decimal(free)} free; give a folder "
            "on another disk, or a smaller --size."
        )


def _write_pixels(split: Any, folder: Path, size: int | None, advance: Callable[[], None]) -> NDArray[np.void]:
    """Write pixels, index and names of training images, decoded in threads."""

    def prepared(one: tuple[Image.Image, int] | int) -> tuple[NDArray[np.uint8], int, int]:
        image, label = split[one] if isinstance(one, int) else one
        pixels = np.ascontiguousarray(_scaled(image, size))
        return pixels, label, zlib.crc32(pixels.data)

    entries, at = [], 0
    every: Iterable[Any] = split if isinstance(split, StreamSplit) else range(len(split))
    with (folder / PIXELS).open("wb") as file:
        for pixels, label, crc32 in _in_threads(prepared, every):
            file.write(pixels.data)
            entries.append((at, *pixels.shape[:2], label, crc32))
            at += pixels.nbytes
            advance()
        file.flush()
        os.fsync(file.fileno())
    index = np.array(entries, ENTRY)
    more = {name: values for name in PER_IMAGE if (values := getattr(split, name, None)) is not None}
    if more:
        index = append_fields(index, [*more], [*more.values()], usemask=False)
    np.save(folder / INDEX, index)
    names = (
        (split.name(key) for key, _ in split.items)
        if files_root(split)
        else (f"image {number}" for number in range(len(entries)))
    )
    (folder / NAMES).write_text("".join(name.replace("\n", " ") + "\n" for name in names))
    return index


def _write_held_out(split: Any, folder: Path, advance: Callable[[], None]) -> Iterator[tuple[str, int, int]]:
    """Copy held-out files, or write held-out images as PNG files; yield path, class and bytes of each."""
    if files_root(split):
        for key, label in split.items:
            name = printable(key)
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(split.root / key, target)
            advance()
            yield name, label, target.stat().st_size
        return
    every = split if isinstance(split, StreamSplit) else (split[number] for number in range(len(split)))
    for number, (image, label) in enumerate(every):
        path = folder / f"{number:07d}.png"
        image.save(path, compress_level=1)
        advance()
        yield path.name, label, path.stat().st_size


def _in_threads(work: Callable[[Any], Any], every: Iterable[Any]) -> Iterator[Any]:
    """Yield results in order; no more images than a few for each core are in memory."""
    iterator, cores = iter(every), usable_cores()
    with ThreadPoolExecutor(cores) as pool:
        while block := list(islice(iterator, 8 * cores)):
            yield from pool.map(work, block)


def _scaled(image: Image.Image, size: int | None) -> Image.Image:
    """Return an image whose shorter side is at most ``size``."""
    short = min(image.size)
    if size is None or short <= size:
        return image
    width, height = (max(size, int(size * side / short)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _mean(sizes: Iterable[tuple[int, int]]) -> float:
    """Return the mean bytes of RGB images of these sizes."""
    return float(np.mean([3 * width * height for width, height in sizes]))
