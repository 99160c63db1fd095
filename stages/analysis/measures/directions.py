"""How many directions hold an image's energy: its own (SVD), and those of one basis for all images (PCA) [EM].

Both come from products of the tokens with themselves. These are symmetric, so only strips of their upper triangle are
computed, in two thirds of the time. (BLAS's ``syrk`` would do that too, but SciPy's wrapper keeps Python's lock.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vitcompress.stages.analysis.results import ENERGY_SHARES, Counts, Floats, first_reaching

STRIP = 64
"""Rows of a product computed at once on the CPU."""


def add_upper(total_RR: Tensor, A_KR: Tensor) -> None:
    """Add ``A^T A``, its upper triangle for certain; what stands below is no result."""
    strip = STRIP if A_KR.device.type == "cpu" else A_KR.shape[1]
    for start in range(0, A_KR.shape[1], strip):
        rows = slice(start, start + strip)
        total_RR[rows, start:].addmm_(A_KR[:, rows].mT, A_KR[:, start:])


def smaller_grams(X_BND: Tensor) -> Tensor:
    """Return of each image ``X X^T`` or ``X^T X``, the smaller: they have the same eigenvalues but for zeros.

    They are float64 ``[B, r, r]``, r = min(N, D); only the upper triangles are filled for certain.
    """
    A_BKR = X_BND.mT if X_BND.shape[1] <= X_BND.shape[2] else X_BND
    size = A_BKR.shape[2]
    if X_BND.device.type != "cpu" or size <= STRIP:
        return A_BKR.mT @ A_BKR
    grams = torch.zeros(len(X_BND), size, size, dtype=X_BND.dtype)
    for gram, A_KR in zip(grams, A_BKR, strict=True):
        add_upper(gram, A_KR)
    return grams


def shares(energies: Floats) -> Floats:
    """Return energies along the last axis as shares of their sum; below zero counts as zero, all zeros stay so."""
    energies = np.maximum(energies, 0.0)
    total = energies.sum(axis=-1, keepdims=True)
    return np.asarray(energies / np.where(total > 0, total, 1.0))


def eigen_of(upper_DD: Tensor) -> tuple[Floats, Tensor]:
    """Return shares of the eigenvalues ``[D]``, largest first (zeros without energy), and their vectors ``[D, D]``.

    Only the upper triangle is read. Vectors stand in columns, in the same order, float64, on the device of the matrix.
    """
    values, vectors = torch.linalg.eigh(upper_DD, UPLO="U")
    return shares(values.flip(0).cpu().numpy()), vectors.flip(1)


def energy_shares(gram_BRR: Tensor) -> Floats:
    """Return the share of each squared singular value ``[B, r]``, largest first, of Gram matrices' upper triangles."""
    return shares(torch.linalg.eigvalsh(gram_BRR, UPLO="U").flip(-1).cpu().numpy())


def ranks_of(share_BR: Floats) -> Counts:
    """Return the smallest number of directions ``[B, 4]`` whose leading ``share_BR`` hold ENERGY_SHARES."""
    return first_reaching(np.cumsum(share_BR, axis=-1), ENERGY_SHARES)


def pca_ranks(X_BND: Tensor, basis_DD: Tensor) -> Counts:
    """Return the smallest d whose leading basis vectors ``v_1 .. v_d`` hold each share of an image's energy.

    ``X_BND`` are float32 values in any precision; the columns of ``basis_DD`` are orthonormal, float64, the most
    energetic over all images first. The counts are ``[B, 4]`` for ENERGY_SHARES, 0 without energy. The share of v_j is
    ``|X v_j|^2 / |X|^2``.
    """
    energy_BD = (X_BND.double() @ basis_DD).square_().sum(dim=1)
    return ranks_of(shares(energy_BD.cpu().numpy()))
