"""The directions of a teacher's width that its narrower student keeps (PCA), and maps corrected by least squares.

Rotating the stream between blocks and keeping its leading directions is SliceGPT, Ashkboos et al., arXiv 2401.15024.
Shape suffixes: S student's width, T teacher's, R rows (tokens of all images), I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vitcompress.stages.models.inherit.streams import inside, rows_of, standardised

RIDGE = 1e-2
"""What a change of the weights costs, as a share of the mean variance of an input."""


@torch.no_grad()
def second_moment(teacher: Any, tokens: Tensor) -> Tensor:
    """Return the mean outer product of the standardised tokens before every norm of every block, ``[T, T]`` float64.

    Args:
        teacher: timm network of equal blocks.
        tokens: what enters its first block, ``[B, N, T]``.
    """
    width = tokens.shape[-1]
    second = torch.zeros(width, width, dtype=torch.float64)
    for block in teacher.blocks:
        found = inside(block, tokens)
        for stream, norm in ((tokens, block.norm1), (found.middle, block.norm2)):
            rows = standardised(rows_of(stream), norm.eps)
            second += rows.T @ rows / len(rows) / (2 * len(teacher.blocks))
        tokens = found.out
    return second


def leading_directions(second: Tensor, width: int) -> Tensor:
    """Return the map from the teacher's stream to one of ``width`` channels, ``[S, T]`` float64.

    Its rows span the leading eigenvectors of ``second``, less the mean over channels, which a LayerNorm takes away on
    either side. Its transpose leads back.
    """
    free = _mean_free(len(second))
    values, vectors = torch.linalg.eigh(free.T @ second @ free)
    leading = free @ vectors[:, values.argsort(descending=True)[: width - 1]]
    encode: Tensor = _mean_free(width) @ leading.T
    return encode


def _mean_free(width: int) -> Tensor:
    """Return an orthonormal basis ``[D, D-1]`` of what has no mean over channels, by a Householder reflection."""
    mirror = torch.full((width,), width**-0.5, dtype=torch.float64)
    mirror[-1] -= 1.0
    reflection = torch.eye(width, dtype=torch.float64) - 2 * torch.outer(mirror, mirror) / mirror.square().sum()
    return reflection[:, :-1]


def corrected(
    weight: Tensor, bias: Tensor, inputs: Tensor, targets: Tensor, ridge: float = RIDGE
) -> tuple[Tensor, Tensor]:
    """Return weight ``[O, I]`` and bias ``[O]``, near to the given ones, by ridge regression of ``targets``.

    Args:
        weight: to begin with.
        bias: likewise.
        inputs: rows ``[R, I]``, float64.
        targets: rows ``[R, O]``, float64.
        ridge: as ``RIDGE``.
    """
    missing = targets - inputs @ weight.T - bias
    mean_in, mean_out = inputs.mean(0), missing.mean(0)
    centred = (inputs - mean_in).float()  # the products below are most of the work; the ridge is far above the rounding
    gram = (centred.T @ centred).double()
    cross = (centred.T @ (missing - mean_out).float()).double()
    cost = ridge * gram.trace() / len(gram) + torch.finfo(gram.dtype).tiny
    change = torch.linalg.solve(gram + cost * torch.eye(len(gram), dtype=gram.dtype), cross)
    return weight + change.T, bias + mean_out - change.T @ mean_in
