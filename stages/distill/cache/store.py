"""The folder of a teacher cache: what is complete in it, adding a file, reading a row."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import Dataset

from vitcompress.core.errors import UsageError
from vitcompress.core.files import reference, write_atomic
from vitcompress.core.fingerprint import fingerprint
from vitcompress.stages.distill.cache.chunks import HEADER_BYTES, ChunkRecord, Part
from vitcompress.stages.distill.cache.config import CacheConfig
from vitcompress.stages.images.loaders import ViewKey

FORMAT = 2
"""Of the files; part of the key."""
_OPEN_FILES = 256
"""Files that a process keeps mapped."""


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
        self.rows = images * views
        self.chunk_rows = min(part.chunk_rows(config.chunk_mb, self.rows) for part in parts)
        self.chunks = -(-self.rows // self.chunk_rows)
        """Files of each quantity."""
        self.key = {**key, "format": FORMAT, "rows": self.rows, "chunk_rows": self.chunk_rows}
        self.base = Path(config.folder) if config.folder else run_folder
        self.folder = self.base / fingerprint(self.key)[:16]
        self.by_name = {part.name: part for part in parts}
        self._opened: Callable[[str, int], tuple[Any, list[float]]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # open files stay with the process that opened them

    def read(self, name: str, row: int) -> Tensor:
        """Return one row of a quantity, float32 of its shape; its file must be complete."""
        if self._opened is None:
            self._opened = lru_cache(_OPEN_FILES)(self._open)
        index, offset = divmod(row, self.chunk_rows)
        values, scales = self._opened(name, index)
        half: Tensor = values[offset]
        return half.float().mul_(scales[offset]).view(self.by_name[name].shape)

    def _open(self, name: str, index: int) -> tuple[Any, list[float]]:
        """Return a file's values, memory-mapped, and its scales."""
        file: Any = safe_open(self.chunk_path(name, index), framework="pt")  # untyped; the slice keeps it open
        return file.get_slice("values"), file.get_tensor("scales").tolist()

    def chunk_path(self, name: str, index: int) -> Path:
        """Return where a file is, or will be; its record is beside it, ``.json``."""
        return self.folder / name / f"{index:06d}.safetensors"

    def rows_of(self, index: int) -> range:
        """Return the rows of a file; the last may have fewer than the others."""
        return range(index * self.chunk_rows, min((index + 1) * self.chunk_rows, self.rows))

    def complete(self, part: Part) -> dict[int, ChunkRecord]:
        """Return the records of the part's complete files, by number; a damaged record counts as none."""
        found = {}
        for path in sorted((self.folder / part.name).glob("[0-9]*.json")):
            try:
                found[int(path.stem)] = ChunkRecord.model_validate_json(path.read_bytes())
            except (ValidationError, FileNotFoundError):
                continue
        return found

    def missing(self) -> dict[int, list[Part]]:
        """Return the parts to compute by file number, ascending; of complete files there is no entry."""
        complete = {part.name: self.complete(part) for part in self.parts}
        wanted = {
            index: [part for part in self.parts if index not in complete[part.name]] for index in range(self.chunks)
        }
        return {index: parts for index, parts in wanted.items() if parts}

    def dense_need(self, missing: dict[int, list[Part]] | None = None) -> int:
        """Return the bytes that files take at most; without an argument, all that are missing."""
        files = self.missing() if missing is None else missing
        return sum(
            len(self.rows_of(index)) * part.row_bytes + HEADER_BYTES for index, parts in files.items() for part in parts
        )

    def commit(self, part: Part, index: int, half: Tensor, scales: Tensor, error: float) -> None:
        """Add a file, then the record that makes it count; each is whole or absent after a crash.

        Args:
            part: the quantity.
            index: the file's number.
            half: its rows, float16 ``[rows, *shape]`` on the CPU.
            scales: float32 ``[rows]``.
            error: the largest of a row.

        Raises:
            UsageError: the disk refuses.
        """
        path = self.chunk_path(part.name, index)
        try:
            write_atomic(path, save({"values": half.flatten(1), "scales": scales}))
            file = reference(path, self.folder).model_dump()
            record = ChunkRecord(**file, rows=len(half), error=error)
            write_atomic(path.with_suffix(".json"), record.model_dump_json() + "\n")
        except OSError as refused:
            raise UsageError(
                f"the teacher cache {path} cannot be written ({refused}); "
                "make room on its disk, or name another folder with distill.cache.folder."
            ) from refused

    def forget(self, part: Part, index: int) -> None:
        """Drop a file's record, so that it counts as missing."""
        self.chunk_path(part.name, index).with_suffix(".json").unlink(missing_ok=True)


class CachedViews(Dataset[tuple[Any, ...]]):
    """``dataset[ViewKey]`` with what the teacher said: image, label, then each part of the store in its order.

    Cached tensors are float32: logits ``[K]``, taps ``[D, H, W]``. Files are opened by the process that reads them, so
    loader processes may be forked or spawned.
    """

    def __init__(self, dataset: Any, store: Store) -> None:
        self.dataset, self.store = dataset, store

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: ViewKey) -> tuple[Any, ...]:
        image, label = self.dataset[key]
        row = key.view * self.store.images + key.index
        return image, label, *(self.store.read(part.name, row) for part in self.store.parts)
