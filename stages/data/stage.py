"""Look at the images before anything is computed from them: classes, counts, digest, and whether they decode."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from os import cpu_count
from pathlib import Path
from typing import Any, Literal

from core.context import Context
from core.preprocess import check_header, open_image
from core.records import DataRecord
from stages.images.config import DataConfig
from stages.images.listing import data_digest, kind_of, suffixes_in_words
from stages.images.sources import Images, StreamSplit, open_images

_FULL_CHECK_LIMIT = 50_000


@dataclass(frozen=True)
class Inputs:
    """This stage reads no record."""


def run(config: DataConfig, inputs: Inputs, context: Context) -> DataRecord:
    """Open the source, check its images, describe it.

    Raises:
        DataError: no usable images, or an image that does not decode, by its path.
    """
    images = open_images(config)
    record = DataRecord(
        config=config.identity(),  # how the images were checked changes nothing for later stages
        source=config.source,
        classes=images.classes,
        train_images=len(images.train),
        val_images=len(images.val),
        split=images.split,
        digest=data_digest(config),
        checked=_check(config, images),
    )
    if images.skipped:
        context.say(
            "note: files in class folders skipped, not recognised as images: "
            f"{sum(images.skipped.values()):,} ({suffixes_in_words(images.skipped)})"
        )
    absent = len(images.classes) - _classes_seen(images.val)
    if absent > 0:
        context.say(f"note: {absent} of {len(images.classes)} classes have no held-out image")
    return record


def check_of(config: DataConfig, count: int) -> Literal["full", "header", "skip"]:
    """How images are opened beforehand, ``auto`` decided from their number."""
    if config.check != "auto":
        return config.check
    if kind_of(config.source) != "folder":
        return "skip"
    return "full" if count <= _FULL_CHECK_LIMIT else "header"


def _check(config: DataConfig, images: Images) -> str:
    """Open the images as ``config.check`` says; what was done, in words."""
    if kind_of(config.source) != "folder":
        return "not needed: embedded" if config.source == "digits" else "not opened beforehand: read through timm"
    count = len(images.train) + len(images.val)
    how = check_of(config, count)
    if how == "skip":
        return "not opened beforehand (data.check=skip)"
    _open_all(images.paths(), open_image if how == "full" else check_header)
    return f"all {count:,} {'decoded' if how == 'full' else 'headers read'}"


def _open_all(paths: Iterable[Path], read: Callable[[Path], object]) -> None:
    """Open files in threads (Pillow's decoders run beside each other); the first that fails ends it."""
    iterator = iter(paths)
    with ThreadPoolExecutor(max_workers=cpu_count()) as pool:
        while block := list(islice(iterator, 4096)):  # in blocks, so that a failure early on ends a long list early
            for _ in pool.map(read, block):
                pass


def _classes_seen(split: Any) -> int:
    """Classes with a held-out image; streams and foreign datasets, which would be read whole, count as having all."""
    items = getattr(split, "items", None)
    if isinstance(split, StreamSplit) or items is None:
        return 10**9
    return len({label for _, label in items})
