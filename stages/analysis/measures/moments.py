"""Products of the tokens with themselves, which the rank and the shared basis are read from.

They are symmetric, so only strips of their upper triangle are computed: 0.41 ms instead of 0.63 ms for ``X^T X`` of an
image of 196 tokens of width 384, in float64 on one core. (BLAS's ``syrk`` would do that too, but SciPy's wrapper keeps
Python's lock meanwhile, and taps are measured side by side.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vitcompress.stages.analysis.results import Floats

STRIP = 64
"""Rows of a product computed at once on the CPU."""


def add_upper(total_RR: Tensor, A_KR: Tensor) -> None:
    """Add ``A^T A``, its upper triangle for certain; what stands below is no result."""
    strip = STRIP if A_KR.device.type == "cpu" else A_KR.shape[1]
    for start in range(0, A_KR.shape[1], strip):
        rows = slice(start, start + strip)
        total_RR[rows, start:].addmm_(A_KR[:, rows].mT, A_KR[:, start:])


def smaller_grams(X_BND: Tensor) -> Tensor:
    """Of each image ``X X^T`` or ``X^T X``, whichever is smaller: they have the same eigenvalues but for zeros.

    Returns:
        float64 ``[B, r, r]``, r = min(N, D); only the upper triangles are filled for certain.
    """
    A_BKR = X_BND.mT if X_BND.shape[1] <= X_BND.shape[2] else X_BND
    size = A_BKR.shape[2]
    if X_BND.device.type != "cpu" or size <= STRIP:
        return A_BKR.mT @ A_BKR
    grams = torch.zeros(len(X_BND), size, size, dtype=X_BND.dtype)
    for gram, A_KR in zip(grams, A_BKR, strict=True):
        add_upper(gram, A_KR)
    return grams


class SecondMoment:
    """``sum X^T X`` over all tokens of all images."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._upper = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add_tokens(self, X_BND: Tensor) -> None:
        """Add these images' tokens."""
        add_upper(self._upper, X_BND.flatten(0, 1))

    def add_grams(self, G_BDD: Tensor) -> None:
        """Add images by their own ``X^T X``, of which only the upper triangle is read."""
        self._upper += G_BDD.sum(0)

    def matrix(self) -> Floats:
        """The sum, symmetric, ``[D, D]``."""
        upper = np.triu(self._upper.cpu().numpy())
        return np.asarray(upper + np.triu(upper, 1).T)

    def eigen(self) -> tuple[Floats, Tensor]:
        """``eigen_of`` the sum."""
        return eigen_of(self._upper)

    def upper(self) -> Tensor:
        """The sum ``[D, D]``, of which only the upper triangle is filled for certain."""
        return self._upper


def eigen_of(upper_DD: Tensor) -> tuple[Floats, Tensor]:
    """Shares of the eigenvalues ``[D]``, largest first (zeros without energy), and their vectors ``[D, D]``.

    Only the upper triangle is read. Vectors stand in columns, in the same order, float64, on the device of the matrix.
    """
    values, vectors = torch.linalg.eigh(upper_DD, UPLO="U")
    return shares(values.flip(0).cpu().numpy()), vectors.flip(1)


def shares(energies: Floats) -> Floats:
    """Energies along the last axis as shares of their sum; rounding below zero counts as zero, all zeros stay so."""
    energies = np.maximum(energies, 0.0)
    total = energies.sum(axis=-1, keepdims=True)
    return np.asarray(energies / np.where(total > 0, total, 1.0))
