"""The folder of a teacher cache: what is complete in it, adding a file, reading a row, and what room it takes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.filesize import decimal
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import Dataset

from vitcompress.core.errors import UsageError
from vitcompress.core.files import is_intact, reference, write_atomic
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.machine import usable_cores
from vitcompress.stages.distill.cache.chunks import HEADER_BYTES, ChunkRecord, Part
from vitcompress.stages.images.loaders import ViewKey

FORMAT = 3
"""Of the files; part of the key."""
_OPEN_FILES = 256
"""Files that a process keeps mapped."""


class Store:
    """The cache of one key. Making one touches no file; it can be sent to loader processes.

    ``key`` is everything the teacher's answers depend on, as JSON values: weights, model, preprocessing, augmentation,
    images, seed, number of views, library versions, precision. Not the taps in use. ``parts`` are in the order in which
    a view's are handed out; there are ``views`` of each of ``images``. ``shared`` tells that other runs use ``base``
    too: two that fill it at once write the same bytes, each file whole.
    """

    def __init__(
        self,
        base: Path,
        key: dict[str, Any],
        parts: tuple[Part, ...],
        *,
        images: int,
        views: int,
        shared: bool = False,
    ) -> None:
        self.base, self.parts, self.images, self.views, self.shared = base, parts, images, views, shared
        self.rows = images * views
        self.chunk_rows = min(part.chunk_rows(self.rows) for part in parts)
        self.chunks = -(-self.rows // self.chunk_rows)
        """Files of each quantity."""
        self.key = {**key, "format": FORMAT, "rows": self.rows, "chunk_rows": self.chunk_rows}
        self.folder = base / fingerprint(self.key)[:16]
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
            except ValidationError:
                continue
        return found

    def missing(self) -> dict[int, list[Part]]:
        """Return the parts to compute by file number, ascending; of complete files there is no entry."""
        complete = [(part, self.complete(part)) for part in self.parts]
        wanted = {index: [part for part, found in complete if index not in found] for index in range(self.chunks)}
        return {index: parts for index, parts in wanted.items() if parts}

    def bytes_needed(self) -> int:
        """Return the bytes that all missing files take, at most."""
        files = self.missing().items()
        return sum(len(self.rows_of(index)) * part.row_bytes + HEADER_BYTES for index, parts in files for part in parts)

    def commit(self, part: Part, index: int, half: Tensor, scales: Tensor) -> None:
        """Add a file of rows ``half``, float16 ``[rows, *shape]``, with their ``scales [rows]``, float32, on the CPU.

        Its record, which makes it count, follows; each is whole or absent after a crash. A UsageError is raised if the
        disk refuses.
        """
        path = self.chunk_path(part.name, index)
        try:
            write_atomic(path, save({"values": half.flatten(1), "scales": scales}))
            record = ChunkRecord(**reference(path, self.folder).model_dump(), rows=len(half))
            write_atomic(path.with_suffix(".json"), record.model_dump_json() + "\n")
        except OSError as refused:
            raise UsageError(
                f"the teacher cache {path} cannot be written ({refused}); make room on its disk."
            ) from refused

    def prepare(self, max_gb: float, say: Callable[[str], None]) -> None:
        """Drop what is stale or damaged, and check that the rest will fit, as ``require_room`` does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "key.json", json.dumps(self.key, indent=2, sort_keys=True) + "\n")
        if not self.shared:
            self._tidy(say)
        self._verify(say)
        self.require_room(max_gb)

    def _tidy(self, say: Callable[[str], None]) -> None:
        """Remove what other settings of this run left, and half files of a process that was killed."""
        for path in sorted(self.base.iterdir()):
            if path != self.folder and (path / "key.json").is_file():
                shutil.rmtree(path)
                say(f"teacher cache: removed {path.name}, of another teacher, other views or settings")
        for leftover in self.folder.glob("*/.*"):
            leftover.unlink()

    def _verify(self, say: Callable[[str], None]) -> None:
        """Compare every file's bytes with its SHA-256; a damaged one loses its record, and so is computed again."""
        started, total = time.monotonic(), 0
        for part in self.parts:
            complete = self.complete(part)
            total += sum(record.bytes for record in complete.values())
            with ThreadPoolExecutor(min(8, usable_cores())) as pool:  # hashing releases the interpreter lock
                intact = list(pool.map(lambda record: is_intact(record, self.folder), complete.values()))
            for index, good in zip(complete, intact, strict=True):
                if not good:
                    self.chunk_path(part.name, index).with_suffix(".json").unlink()
                    say(f"teacher cache: {part.name} chunk {index:06d} damaged or missing, computed again")
        if total:
            say(f"teacher cache: {decimal(total)} verified in {time.monotonic() - started:.1f} s")

    def require_room(self, max_gb: float) -> None:
        """Refuse, by a UsageError, a cache that would exceed ``max_gb``, or what is free on its disk."""
        need = self.bytes_needed()
        own = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        disk = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(disk).free
        if need and own + need > max_gb * 1e9:
            why = f"distill.cache.max_gb = {max_gb:g} allows less"
        elif need > free:
            why = f"its disk has {decimal(free)} free"
        else:
            return
        raise UsageError(
            f"the teacher cache would take up to {decimal(own + need)} ({self.views} views of {self.images} images: "
            f"{', '.join(self.by_name)}), and {why}. Lower distill.views, use fewer distill.features, raise the limit, "
            "or set distill.views=0 for the live teacher."
        )


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
