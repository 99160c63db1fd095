"""What keeping the teacher's answers would take: bytes, seconds, and from which length of training it pays."""

from __future__ import annotations

import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from vitcompress.core.errors import UsageError
from vitcompress.stages.distill.cache.chunks import HEADER_BYTES, Part
from vitcompress.stages.distill.cache.store import Store

_SAMPLE_BYTES = 64e6
"""At most, of the files that reading is measured with."""
_VIEWS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Kept:
    """What is known of a teacher's answers, whether or not they are to be kept."""

    parts: tuple[Part, ...]
    images: int
    folder: Path
    """Folder that they would be kept in."""
    max_bytes: float
    """Bytes that the config allows."""
    operators: int
    """Operators that a pass of the teacher starts, for any number of images."""
    operations_share: float
    """The teacher's part of the operations of a step with it, 0 to 1: a forward pass against three of the student's."""
    answering: float
    """Seconds an image of the teacher, in one process here, at the batch that steps are measured at."""
    reading: float | None
    """Seconds in which one process here reads what it said of an image from ``folder``'s disk; None where it could not
    be measured."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one view of an image."""
        return sum(part.row_bytes for part in self.parts)

    @property
    def logits(self) -> tuple[Part, ...]:
        """The parts that are kept without feature losses."""
        return tuple(part for part in self.parts if part.name == "logits")

    def bytes_of(self, views: int, parts: tuple[Part, ...]) -> int:
        """Return at most the bytes of disk that so many views of every image take, by the layout of the files."""
        store = Store(self.folder, {}, parts, images=self.images, views=views)  # touches no file
        return sum(store.rows * part.row_bytes + store.chunks * HEADER_BYTES for part in parts)

    @property
    def free(self) -> int:
        """Free bytes of its disk."""
        return shutil.disk_usage(existing(self.folder)).free

    def refusal(self, need: int) -> str:
        """Return why a run would refuse to keep so many bytes; empty where it would not."""
        return "max_gb" if need > self.max_bytes else "disk" if need > self.free else ""


class Pace(NamedTuple):
    """Seconds on one machine, at one of the rates that it may reach."""

    live: float
    """Of an epoch with the teacher live."""
    cached: float
    """Of an epoch that reads its answers."""
    filling: float
    """Of answering one view of every image."""


class CacheRow(NamedTuple):
    """A number of views against the live teacher; each time once for every pace."""

    views: int
    """0: the teacher live."""
    bytes: int
    logits_bytes: int | None
    """Without feature losses; None where the logits are not asked for."""
    refusal: str
    filling: tuple[float, ...]
    training: tuple[float, ...]
    faster_from: tuple[float, ...]
    """Epochs from which it takes less time than the teacher live; infinite where it never does."""


def cache_rows(kept: Kept, paces: list[Pace], epochs: int, repeats: int, chosen: int) -> list[CacheRow]:
    """Return the teacher live, and numbers of views that the training can use, the ``chosen`` one among them.

    Args:
        kept: the answers.
        paces: of the machine.
        epochs: of the training.
        repeats: views of an image that a pass draws; fewer fixed ones would repeat within it.
        chosen: that the config asks for; 0 for none.
    """
    counts = {*_VIEWS, epochs * repeats, *([chosen] if chosen else [])}
    none = (0.0,) * len(paces)
    rows = [CacheRow(0, 0, None, "", none, tuple(epochs * pace.live for pace in paces), none)]
    for views in sorted(count for count in counts if repeats <= count <= epochs * repeats):
        need = kept.bytes_of(views, kept.parts)
        rows.append(
            CacheRow(
                views,
                need,
                kept.bytes_of(views, kept.logits) if kept.logits else None,
                kept.refusal(need),
                tuple(views * pace.filling for pace in paces),
                tuple(epochs * pace.cached for pace in paces),
                tuple(_breaks_even(pace, views, repeats) for pace in paces),
            )
        )
    return rows


def _breaks_even(pace: Pace, views: int, repeats: int) -> float:
    """Return the least epochs that use every view and take less time than with the teacher live."""
    saved = pace.live - pace.cached
    return max(math.floor(views * pace.filling / saved) + 1, -(-views // repeats)) if saved > 0 else math.inf


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above that is there: on the disk where it would be made."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def measure_reading(parts: tuple[Part, ...], images: int, folder: Path) -> float | None:
    """Return the seconds in which one process reads an image's answers as a loader does; None where it cannot write.

    Files of the cache's layout, up to 64 MB, are written to the disk of ``folder``, taken out of memory where the
    system can be asked to, read in random order, and removed.
    """
    try:
        with TemporaryDirectory(prefix=".compress-dry-run-", dir=existing(folder)) as own:
            store = Store(Path(own), {}, parts, images=images, views=1)
            rows = max(1, min(store.chunk_rows, int(_SAMPLE_BYTES / sum(part.row_bytes for part in parts))))
            for part in parts:
                store.commit(part, 0, torch.rand(rows, *part.shape).half(), torch.ones(rows))
                _forget(store.chunk_path(part.name, 0))
            order = torch.randperm(rows, generator=torch.Generator().manual_seed(0)).tolist()
            started = time.perf_counter()
            for row in order:
                for part in parts:
                    store.read(part.name, row)
            return (time.perf_counter() - started) / rows
    except (OSError, UsageError):
        return None


def _forget(path: Path) -> None:
    """Ask the system to keep nothing of a file in memory."""
    if not hasattr(os, "posix_fadvise"):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
