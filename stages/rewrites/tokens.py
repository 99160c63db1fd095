"""A batch of token sequences, kept token by token instead of image by image.

timm keeps ``[B, T, D]``. Here the same rows are ``[T B, D]``: a linear layer is then one ONNX ``Gemm`` with its bias,
and the permutations that make heads of queries, keys and values become strides of the attention products, where ONNX
Runtime would copy all three (docs/performance-export.md).

Shape suffixes: B batch, T tokens, R tokens read, D width, H heads, d head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """Tokens ``start`` to ``stop`` (None: the last) of a sequence."""

    start: int = 0
    stop: int | None = None

    @property
    def everything(self) -> bool:
        """Return whether no token is left out."""
        return self.start == 0 and self.stop is None

    def count(self, tokens: int) -> int:
        """Return how many these are of ``tokens``."""
        return (tokens if self.stop is None else self.stop) - self.start

    def of(self, x: Tensor, axis: int) -> Tensor:
        """Return these entries of ``x`` along ``axis``."""
        return x if self.everything else x.narrow(axis, self.start, self.count(x.shape[axis]))


ALL = Span()


@dataclass(frozen=True)
class Tokens:
    """Sequences of ``count`` tokens each."""

    x: Tensor
    """``[T B, D]``."""
    count: int

    def map(self, function: Callable[[Tensor], Tensor]) -> Tokens:
        """Apply a function of single tokens to each."""
        return replace(self, x=function(self.x))

    def plus(self, other: Tokens) -> Tokens:
        """Add token by token."""
        return replace(self, x=self.x + other.x)

    def stacked(self) -> Tensor:
        """Return them with an axis of its own for the batch, ``[T, B, D]``."""
        return self.x.reshape(self.count, -1, self.x.shape[-1])

    def sequences(self) -> Tensor:
        """Return them batch first, ``[B, T, D]``."""
        return self.stacked().transpose(0, 1)

    def read(self, span: Span) -> Tokens:
        """Return those in ``span``."""
        if span.everything:
            return self
        return Tokens(span.of(self.stacked(), 0).flatten(0, 1), span.count(self.count))

    def after(self, prefix_1pD: Tensor) -> Tokens:
        """Put the same ``prefix`` tokens before each sequence."""
        x_TBD = self.stacked()
        prefix_pBD = prefix_1pD.transpose(0, 1).expand(-1, x_TBD.shape[1], -1)
        return Tokens(torch.cat([prefix_pBD, x_TBD], dim=0).flatten(0, 1), self.count + prefix_1pD.shape[1])

    def offset(self, constant_1TD: Tensor) -> Tokens:
        """Add the same constants to each sequence."""
        return replace(self, x=(self.stacked() + constant_1TD.transpose(0, 1)).flatten(0, 1))

    def heads(self, heads: int) -> Tensor:
        """Split channels into heads, ``[B, H, T, d]``."""
        return self.x.reshape(self.count, -1, heads, self.x.shape[-1] // heads).permute(1, 2, 0, 3)

    def with_heads(self, out_BHRd: Tensor) -> Tokens:
        """Join heads."""
        heads, count, size = out_BHRd.shape[1:]
        return Tokens(out_BHRd.permute(2, 0, 1, 3).reshape(-1, heads * size), count)
