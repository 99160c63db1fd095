"""One file of the cache: consecutive rows of one quantity in half precision."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from vitcompress.core.record import FileRef, Record

_MAX_ROWS = 1024
HEADER_BYTES = 1024
"""At least a file's header."""


class Part(Record):
    """A quantity of the teacher: its logits, or one tap."""

    name: str = Field(pattern=r"^(logits|tap-\d+)$")
    shape: tuple[int, ...]
    """Of one row: ``(K,)`` or ``(D, H, W)``."""

    def chunk_rows(self, chunk_mb: float, rows: int) -> int:
        """Return the rows of a file, a power of two so that the files of different quantities end at common rows.

        At most ``chunk_mb``, 1024, and a sixteenth of all ``rows``: what a crash costs and processes share out.
        """
        most = min(_MAX_ROWS, rows // 16, int(chunk_mb * 1e6 / self.row_bytes))
        return 1 << (max(1, most).bit_length() - 1)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row with its scale."""
        return 2 * math.prod(self.shape) + 4


class ChunkRecord(FileRef):
    """A complete file; its path is relative to the folder of the key."""

    rows: int
    error: float
    """Largest relative error (Frobenius) of a row, measured."""


def to_half(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows ``[B, ...]`` as float16 and one float32 scale a row ``[B]``: ``values ~ half * scale``.

    The scale is the power of two that takes the row's largest absolute value into [2^14, 2^15): nothing overflows, and
    since it is exact, an error is half precision's own: at most ``2^-11 |x| + 2^-39 max|x|``.
    """
    values = values.float()
    largest = values.flatten(1).abs().amax(dim=1)
    mantissa, _ = torch.frexp(largest)
    floor = 2.0**-100  # below it the quotients would leave float32's normal range
    scale = torch.where(largest > floor, largest / 2**15 / mantissa, floor)
    return (values / _as_column(scale, values)).half(), scale


def from_half(half: Tensor, scale: Tensor) -> Tensor:
    """Return float32 ``[B, ...]``, the inverse of ``to_half``."""
    return half.float() * _as_column(scale, half)


def relative_errors(stored: Tensor, exact: Tensor) -> Tensor:
    """Return ``|stored - exact| / |exact|`` (Frobenius) of each row ``[B, ...]``, 0 if both are 0; float64 ``[B]``."""
    difference = (stored.double() - exact.double()).flatten(1).norm(dim=1)  # float32 squares could overflow
    return torch.where(difference > 0, difference / exact.double().flatten(1).norm(dim=1), 0.0)


def _as_column(scale: Tensor, like: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (like.dim() - 1))
