"""One file of the cache: consecutive rows of one quantity in half precision."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from vitcompress.core.record import FileRef, Record

_MAX_ROWS = 1024
_MAX_BYTES = 256e6
HEADER_BYTES = 1024
"""At least a file's header."""


class Part(Record):
    """A quantity of the teacher: its logits, or one tap."""

    name: str = Field(pattern=r"^(logits|tap-\d+)$")
    shape: tuple[int, ...]
    """Of one row: ``(K,)`` or ``(D, H, W)``."""

    def chunk_rows(self, rows: int) -> int:
        """Return the rows of a file, a power of two so that the files of different quantities end at common rows.

        At most 256 MB, 1024 rows, and a sixteenth of all ``rows``: what a crash costs and processes share out.
        """
        most = min(_MAX_ROWS, rows // 16, int(_MAX_BYTES / self.row_bytes))
        return 1 << (max(1, most).bit_length() - 1)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row with its scale."""
        return 2 * math.prod(self.shape) + 4


class ChunkRecord(FileRef):
    """A complete file; its path is relative to the folder of the key."""

    rows: int


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
    return (values / scale.view(-1, *[1] * (values.dim() - 1))).half(), scale
