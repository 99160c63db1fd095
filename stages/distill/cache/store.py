"""The folder of a teacher cache: what is complete in it, adding a chunk, reading a row."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vitcompress.core.errors import UsageError
from vitcompress.core.files import sha256_of, write_atomic
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.record import Record
from vitcompress.stages.distill.cache.chunks import ChunkStats, OpenChunk, Part
from vitcompress.stages.distill.cache.config import CacheConfig

FORMAT = 1
"""Of manifests and chunk files; a part of another format is rebuilt."""
_OPEN_FILES = 256
"""Chunks that a process keeps mapped."""


class ChunkRecord(ChunkStats):
    """A complete chunk."""

    sha256: str
    bytes: int


class Manifest(Record):
    """What is complete in one part."""

    format: int
    part: Part
    rows: int
    """Of the whole part."""
    chunk_rows: int
    chunks: dict[int, ChunkRecord]
    """By chunk number."""


class Store:
    """The cache of one key. Making one touches no file; it can be sent to loader processes.

    Args:
        config: settings.
        key: everything the teacher's answers depend on, as JSON values: weights, model, preprocessing, augmentation,
            images, seed, number of views, library versions, precision. Not the taps in use.
        parts: the quantities in use, in the order in which a view's are handed out.
        images: images in the training split.
        views: distinct views of each.
        run_folder: the run's own RUN/cache, used when the config names no folder.
    """

    def __init__(
        self,
        config: CacheConfig,
        key: dict[str, Any],
        parts: tuple[Part, ...],
        *,
        images: int,
        views: int,
        run_folder: Path,
    ) -> None:
        self.config, self.parts, self.images, self.views = config, parts, images, views
        self.key = {**key, "tap_error": config.tap_error, "chunk_mb": config.chunk_mb}
        self.shared = config.folder is not None
        self.base = Path(config.folder) if config.folder else run_folder
        self.folder = self.base / fingerprint(self.key)[:16]
        self.rows = images * views
        self.by_name = {part.name: part for part in parts}
        self.chunk_rows = {part.name: part.chunk_rows(config.chunk_mb, self.rows) for part in parts}
        self._opened: Callable[[str, int], OpenChunk] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # open files stay with the process that opened them

    def row(self, image: int, view: int) -> int:
        """The row of a view."""
        return view * self.images + image

    def read(self, name: str, row: int) -> Tensor:
        """One row of a quantity, float32 of its shape; its chunk must be complete."""
        if self._opened is None:
            self._opened = lru_cache(_OPEN_FILES)(self._open)
        index, offset = divmod(row, self.chunk_rows[name])
        return self._opened(name, index).row(offset)

    def _open(self, name: str, index: int) -> OpenChunk:
        return OpenChunk(self.chunk_path(name, index), self.by_name[name])

    def chunk_path(self, name: str, index: int) -> Path:
        """Where a chunk is, or will be."""
        return self.folder / name / f"{index:06d}.safetensors"

    def chunk_size(self, name: str, index: int) -> int:
        """Rows of a chunk; the last may have fewer than the others."""
        return min(self.chunk_rows[name], self.rows - index * self.chunk_rows[name])

    def manifest(self, part: Part) -> Manifest:
        """The part's manifest; an empty one when there is none of this format and shape."""
        return self.stored_manifest(part) or Manifest(
            format=FORMAT, part=part, rows=self.rows, chunk_rows=self.chunk_rows[part.name], chunks={}
        )

    def stored_manifest(self, part: Part) -> Manifest | None:
        """The manifest on disk, if it is of this format and shape."""
        try:
            found = Manifest.model_validate_json(self._manifest_path(part).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        wanted = (FORMAT, part, self.rows, self.chunk_rows[part.name])
        return found if (found.format, found.part, found.rows, found.chunk_rows) == wanted else None

    def missing(self) -> dict[str, set[int]]:
        """Numbers of the chunks to compute, by part."""
        every = {part.name: set(range(-(-self.rows // self.chunk_rows[part.name]))) for part in self.parts}
        return {part.name: every[part.name] - set(self.manifest(part).chunks) for part in self.parts}

    def dense_need(self) -> int:
        """Bytes that the missing chunks take at most."""
        return sum(
            self.by_name[name].file_bytes(self.chunk_size(name, index))
            for name, indices in self.missing().items()
            for index in indices
        )

    def is_intact(self, name: str, index: int, record: ChunkRecord) -> bool:
        """Whether a chunk's file still has the bytes it was written with."""
        path = self.chunk_path(name, index)
        return path.is_file() and path.stat().st_size == record.bytes and sha256_of(path) == record.sha256

    def commit(self, part: Part, index: int, tensors: dict[str, Tensor], stats: ChunkStats) -> None:
        """Add a chunk: its file first, then its line of the manifest, each whole or absent after a crash.

        Raises:
            UsageError: the disk refuses.
        """
        path = self.chunk_path(part.name, index)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            save_file(tensors, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            record = ChunkRecord(**stats.model_dump(), sha256=sha256_of(temporary), bytes=temporary.stat().st_size)
            temporary.replace(path)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise UsageError(
                f"the teacher cache {path} cannot be written ({error}); "
                "make room on its disk, or name another folder with distill.cache.folder."
            ) from error
        self._change(part, lambda chunks: {**chunks, index: record})

    def forget(self, part: Part, indices: list[int]) -> None:
        """Take chunks out of the manifest, so that they count as missing."""
        self._change(part, lambda chunks: {index: chunks[index] for index in chunks if index not in indices})

    def _change(self, part: Part, change: Callable[[dict[int, ChunkRecord]], dict[int, ChunkRecord]]) -> None:
        path = self._manifest_path(part)
        with FileLock(path.with_name(".manifest.lock")):  # the processes of a run add to one manifest
            manifest = self.manifest(part)
            chunks = dict(sorted(change(manifest.chunks).items()))
            write_atomic(path, manifest.model_copy(update={"chunks": chunks}).model_dump_json(indent=1) + "\n")

    def _manifest_path(self, part: Part) -> Path:
        return self.folder / part.name / "manifest.json"
