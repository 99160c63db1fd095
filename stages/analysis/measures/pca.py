"""Dataset PCA [EM]: how many vectors of one basis, shared by all images, hold an image's energy (DESIGN, 3.4)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from stages.analysis.measures.moments import shares
from stages.analysis.results import ENERGY_SHARES, Counts, first_reaching


def pca_ranks(X_BND: Tensor, basis_DD: Tensor) -> Counts:
    """Smallest d whose leading basis vectors ``v_1 .. v_d`` hold each share of an image's energy.

    Args:
        X_BND: tokens, float64 ``[B, N, D]``.
        basis_DD: orthonormal columns, the most energetic over all images first.

    Returns:
        ``[B, 4]`` for ENERGY_SHARES; 0 without energy. The share of v_j is ``|X v_j|^2 / |X|^2``.
    """
    energy_BD = (X_BND @ basis_DD).square_().sum(dim=1)
    return first_reaching(np.cumsum(shares(energy_BD.cpu().numpy()), axis=-1), ENERGY_SHARES)
