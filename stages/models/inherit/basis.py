"""Of a teacher's width, the part that a student keeps: channels, or directions of the stream between blocks.

Sources: weight selection, Xu et al., arXiv 2311.18823; rotation and slicing, Ashkboos et al. (SliceGPT), arXiv
2401.15024; spectral initialisation of factors, Khodak et al., arXiv 2105.01029.
Shape suffixes: S student width, T teacher width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitcompress.stages.models.inherit.streams import inner, inside, rows_of, standardised


@dataclass(frozen=True)
class Basis:
    """A linear map from the teacher's stream to the student's, with orthonormal rows (up to the student's mean)."""

    encode: Tensor
    """``[S, T]``, float64; its transpose leads back."""
    channels: Tensor | None
    """Indices ``[S]`` where it only selects channels; None where it rotates."""
    words: str

    @property
    def width(self) -> int:
        """Return the student's width S."""
        return int(self.encode.shape[0])


@dataclass(frozen=True)
class Moments:
    """What the teacher's norms make of its stream, over all tokens of some images."""

    second: Tensor
    """Mean outer product of the standardised tokens over all norms ``[T, T]``, float64; its trace is T."""
    reads: Tensor
    """How much of each channel the maps behind the norms take in, squared, ``[T]``, float64."""
    weights: Tensor
    """Gram matrix of everything that reads from or writes to the stream ``[T, T]``, float64."""


@torch.no_grad()
def moments_of(teacher: Any, tokens: Tensor) -> Moments:
    """Compute the moments over every norm of every block, from tokens ``[B, N, T]`` that enter the first one."""
    width = tokens.shape[-1]
    second, weights = (torch.zeros(width, width, dtype=torch.float64) for _ in range(2))
    reads = torch.zeros(width, dtype=torch.float64)
    for block in map(inner, teacher.blocks):
        found = inside(block, tokens)
        for stream, norm, reader, writer in (
            (tokens, block.norm1, block.attn.qkv, block.attn.proj),
            (found.middle, block.norm2, block.mlp.fc1, block.mlp.fc2),
        ):
            rows = standardised(rows_of(stream), norm.eps)
            outer = rows.T @ rows / len(rows)
            read = (reader.weight * norm.weight).cpu().double()
            write = writer.weight.cpu().double()
            second += outer / (2 * len(teacher.blocks))
            reads += outer.diagonal() * read.square().sum(0)
            weights += read.T @ read / read.square().sum() + write @ write.T / write.square().sum()
        tokens = found.out
    return Moments(second, reads, weights)


def basis_of(way: str, moments: Moments, width: int) -> Basis:
    """Return the part of ``width`` that this way keeps; all of it where the student is as wide."""
    full = len(moments.reads)
    if way in ("channels", "important"):
        if way == "channels" or width == full:
            chosen = torch.arange(width) * full // width
            what = "evenly spaced channels"
        else:
            chosen = moments.reads.topk(width).indices.sort().values
            what = "the most important channels"
        encode = torch.eye(full, dtype=torch.float64)[chosen]
        share = float(moments.second.diagonal()[chosen].sum() / moments.second.trace())
        return Basis(encode, chosen, f"{what}, {width} of {full} ({100 * share:.1f} % of energy)")
    gram = moments.weights if way == "spectral" else moments.second
    chosen = _leading(gram, min(width, full) - 1)
    encode = _mean_free(width)[:, : chosen.shape[1]] @ chosen.T
    share = float((encode @ moments.second @ encode.T).trace() / moments.second.trace())
    what = "singular directions of its weights" if way == "spectral" else "PCA directions"
    return Basis(encode, None, f"{what}, {width} of {full} ({100 * share:.1f} % of energy)")


def identity(width: int) -> Basis:
    """Return the whole width, as it is."""
    return Basis(torch.eye(width, dtype=torch.float64), torch.arange(width), f"all {width} channels")


def _leading(gram: Tensor, count: int) -> Tensor:
    """Return leading eigenvectors ``[T, count]`` of a Gram matrix less the mean over channels (of LayerNorm)."""
    free = _mean_free(len(gram))
    values, vectors = torch.linalg.eigh(free.T @ gram @ free)
    leading: Tensor = free @ vectors[:, values.argsort(descending=True)[:count]]
    return leading


def _mean_free(width: int) -> Tensor:
    """Return an orthonormal basis ``[D, D-1]`` of what has no mean over channels, by a Householder reflection.

    The student's own LayerNorm subtracts a mean too; tokens in this space have none, so it takes nothing away.
    """
    mirror = torch.full((width,), width**-0.5, dtype=torch.float64)
    mirror[-1] -= 1.0
    reflection = torch.eye(width, dtype=torch.float64) - 2 * torch.outer(mirror, mirror) / mirror.square().sum()
    return reflection[:, :-1]
