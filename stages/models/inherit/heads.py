"""Attention of a teacher's block as its student can hold it: fewer heads, of another size.

Shape suffixes: h heads, d size of a head, S width of the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Heads:
    """Every head of one attention, float64. Scores are ``query . key`` times ``d ** -0.5``."""

    query: Tensor
    """``[h, d, S + 1]``, biases in the last column; ``key`` and ``value`` likewise."""
    key: Tensor
    value: Tensor
    out: Tensor
    """``[h, S, d]``."""

    def chosen(self, indices: Tensor) -> Heads:
        """Return some of them."""
        return Heads(self.query[indices], self.key[indices], self.value[indices], self.out[indices])


def split_heads(qkv: Tensor, bias: Tensor, out: Tensor, heads: int) -> Heads:
    """Return heads of ``qkv [3 h d, S]``, its bias, and the output projection ``[S, h d]``."""
    joined = torch.cat([qkv, bias[:, None]], dim=1)
    query, key, value = joined.reshape(3, heads, -1, joined.shape[1])
    return Heads(query, key, value, out.reshape(len(out), heads, -1).transpose(0, 1))


def joined_heads(heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``qkv``, its bias and the output projection, as ``split_heads`` takes them."""
    joined = torch.stack([heads.query, heads.key, heads.value]).flatten(0, 2)
    return joined[:, :-1], joined[:, -1], heads.out.transpose(0, 1).flatten(1)


def resized(heads: Heads, size: int, seed: Heads) -> Heads:
    """Give heads another size with the same scores and outputs, or as near as a smaller size allows.

    A smaller head keeps the leading singular directions of ``query' key`` and of ``out value``. A larger one is filled
    up with the key and the value of ``seed`` (random weights ``[h, size, S + 1]``), and zeros opposite them.
    """
    old = heads.query.shape[1]
    if old == size:
        return heads
    scale = (size / old) ** 0.5  # the softmax divides by the root of the head's size
    if size > old:
        grown = Heads(torch.zeros_like(seed.query), seed.key.clone(), seed.value.clone(), torch.zeros_like(seed.out))
        grown.query[:, :old], grown.key[:, :old] = heads.query * scale, heads.key
        grown.value[:, :old], grown.out[:, :, :old] = heads.value, heads.out
        return grown
    key, query = _leading_factors(heads.key.transpose(1, 2), heads.query, size)
    out, value = _leading_factors(heads.out, heads.value, size)
    return Heads(query * scale, key.transpose(1, 2), value, out)


def _leading_factors(left: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return balanced factors ``[h, A, rank]`` and ``[h, rank, B]`` nearest to ``left [h, A, d] @ right [h, d, B]``."""
    first, inner_left = torch.linalg.qr(left)
    second, inner_right = torch.linalg.qr(right.transpose(1, 2))
    u, values, v = torch.linalg.svd(inner_left @ inner_right.transpose(1, 2))
    root = values[:, None, :rank].sqrt()
    return first @ u[:, :, :rank] * root, (second @ v.transpose(1, 2)[:, :, :rank] * root).transpose(1, 2)


def filled(heads: Heads, count: int, seed: Heads) -> Heads:
    """Add the heads of ``seed`` up to ``count``; they write nothing yet."""
    have = len(heads.query)
    parts = {name: torch.cat([getattr(heads, name), getattr(seed, name)[have:count]]) for name in vars(heads)}
    parts["out"][have:] = 0.0
    return Heads(**parts)
