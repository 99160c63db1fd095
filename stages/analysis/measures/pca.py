"""Dataset PCA [EM]: how many vectors of one basis, shared by all images, hold an image's energy (DESIGN, 3.4)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vitcompress.stages.analysis.measures.moments import shares
from vitcompress.stages.analysis.results import ENERGY_SHARES, Counts, Floats, first_reaching

_DOUBTFUL = 1e-5
"""Cumulative shares this close to a target are computed again in float64; float32 moves them by less."""


def pca_ranks(X_BND: Tensor, basis_DD: Tensor) -> Counts:
    """Smallest d whose leading basis vectors ``v_1 .. v_d`` hold each share of an image's energy.

    As in float64, but computed in float32 where that decides: twice as fast.

    Args:
        X_BND: tokens, ``[B, N, D]``, float32 values in any precision.
        basis_DD: orthonormal columns, float64, the most energetic over all images first.

    Returns:
        ``[B, 4]`` for ENERGY_SHARES; 0 without energy. The share of v_j is ``|X v_j|^2 / |X|^2``.
    """
    curves = _curves(X_BND.float(), basis_DD.float())
    margin = np.abs(curves[..., None] - np.asarray(ENERGY_SHARES)).min(axis=(1, 2))
    doubtful = np.flatnonzero(margin <= _DOUBTFUL)
    if len(doubtful):
        rows = torch.from_numpy(doubtful).to(X_BND.device)
        curves[doubtful] = _curves(X_BND[rows].double(), basis_DD)
    return first_reaching(curves, ENERGY_SHARES)


def _curves(X_BND: Tensor, basis_DD: Tensor) -> Floats:
    """Cumulative shares ``[B, D]``."""
    energy_BD = (X_BND @ basis_DD).double().square_().sum(dim=1)  # no square of a float32 is beyond a float64
    return np.asarray(np.cumsum(shares(energy_BD.cpu().numpy()), axis=-1))
