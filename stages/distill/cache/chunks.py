"""One file of the cache: consecutive rows of one quantity, as half-precision numbers or as factors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import safe_open
from torch import Tensor

from vitcompress.core.record import Record
from vitcompress.stages.distill.cache.lowrank import (
    Factors,
    factorise,
    from_half,
    low_rank_pays,
    product,
    relative_errors,
    to_half,
)

_MAX_ROWS = 1024
_PROBED = 4
"""Rows that tell whether low rank is worth a decomposition of the others."""
_HEADER_BYTES = 1024
"""At least a file's header."""


class Part(Record):
    """A quantity of the teacher: its logits, or one tap."""

    name: str = Field(pattern=r"^(logits|tap-\d+)$")
    shape: tuple[int, ...]
    """Of one row: ``(K,)`` or ``(D, H, W)``."""

    @property
    def values(self) -> int:
        """Numbers in a row."""
        return int(torch.Size(self.shape).numel())

    def chunk_rows(self, chunk_mb: float, rows: int) -> int:
        """Rows of a file, a power of two so that the files of different quantities end at common rows.

        At most ``chunk_mb``, 1024, and a sixteenth of all ``rows``: what a crash costs and processes share out.
        """
        most = min(_MAX_ROWS, rows // 16, int(chunk_mb * 1e6 / self.dense_bytes(1)))
        return 1 << (max(1, most).bit_length() - 1)

    def dense_bytes(self, rows: int) -> int:
        """Bytes of ``rows`` rows in half precision, with their scales."""
        return rows * (2 * self.values + 4)

    def file_bytes(self, rows: int) -> int:
        """The most that a file of ``rows`` rows takes."""
        return self.dense_bytes(rows) + _HEADER_BYTES


class ChunkStats(Record):
    """What storing did to the values of one file."""

    rows: int
    dense_bytes: int
    """Of the same rows without low rank."""
    mean_rank: float | None
    """Over the rows; null where they are stored as they are."""
    error: float
    """Largest relative error (Frobenius) of a row, measured."""


class ChunkBuilder:
    """Collects the rows of one file, batch by batch."""

    def __init__(self, part: Part, rows: int, tap_error: float) -> None:
        self.part, self.rows, self.tap_error = part, rows, tap_error
        self.half = torch.empty(rows, *part.shape, dtype=torch.float16)
        self.scales = torch.empty(rows)
        self.error = 0.0
        self.filled = 0
        self.factors: list[Factors] | None = [] if len(part.shape) == 3 else None

    @property
    def full(self) -> bool:
        """Whether every row is there."""
        return self.filled == self.rows

    def add(self, batch: Tensor) -> None:
        """The next rows, finite, ``[b, *shape]`` on any device."""
        half, scales = to_half(batch)
        end = self.filled + len(batch)
        self.error = max(self.error, float(relative_errors(from_half(half, scales), batch).max()))
        self.half[self.filled : end] = half.cpu()
        self.scales[self.filled : end] = scales.cpu()
        if self.factors is not None:
            self._factorise(batch.float().flatten(2), self.factors)
        self.filled = end

    def _factorise(self, taps_BDN: Tensor, factors: list[Factors]) -> None:
        if not factors and not low_rank_pays(taps_BDN[:_PROBED], self.tap_error):
            self.factors = None
            return
        found = factorise(taps_BDN, self.tap_error)
        if found is None:
            self.factors = None
        else:
            factors.append(found.cpu())

    def finish(self) -> tuple[dict[str, Tensor], ChunkStats]:
        """The tensors of the file, on the CPU: the smaller of both forms."""
        dense = {"values": self.half.flatten(1), "scales": self.scales}
        stats = ChunkStats(rows=self.rows, dense_bytes=_bytes(dense), mean_rank=None, error=self.error)
        if self.factors is None:
            return dense, stats
        joined = {
            "basis": torch.cat([each.basis for each in self.factors]),
            "coords": torch.cat([each.coords for each in self.factors]),
            "ranks": torch.cat([each.ranks for each in self.factors]),
            "scales": torch.cat([each.scales for each in self.factors]),
        }
        if _bytes(joined) >= _bytes(dense):
            return dense, stats
        error = max(float(each.errors.max()) for each in self.factors)
        rank = float(joined["ranks"].double().mean())
        return joined, stats.model_copy(update={"mean_rank": rank, "error": error})


class OpenChunk:
    """A file of the cache, memory-mapped; ``row`` reads what one row needs."""

    def __init__(self, path: Path, part: Part) -> None:
        self.part = part
        file: Any = safe_open(path, framework="pt")  # untyped; the slices keep it open
        self.scales = file.get_tensor("scales").tolist()
        self.low_rank = "ranks" in file.keys()  # noqa: SIM118 - the handle is no mapping
        if self.low_rank:
            self.ends = file.get_tensor("ranks").cumsum(0).tolist()
            self.basis, self.coords = file.get_slice("basis"), file.get_slice("coords")
        else:
            self.values = file.get_slice("values")

    def row(self, index: int) -> Tensor:
        """Row ``index`` of the file, float32 of the quantity's shape."""
        scale = self.scales[index]
        if not self.low_rank:
            values: Tensor = self.values[index]
            return values.float().mul_(scale).view(self.part.shape)
        start, end = self.ends[index - 1] if index else 0, self.ends[index]
        if start == end:
            return torch.zeros(self.part.shape)
        matrix = product(self.basis[start:end], self.coords[start:end], scale, self.part.shape[0])
        return matrix.view(self.part.shape)


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
