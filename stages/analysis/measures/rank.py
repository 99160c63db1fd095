"""Sample-wise SVD [EM]: how many directions hold an image's energy (DESIGN, section 3.4)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vitcompress.stages.analysis.measures.moments import shares
from vitcompress.stages.analysis.measures.per_image import PerImage
from vitcompress.stages.analysis.results import ENERGY_SHARES, Counts, Floats, first_reaching


class SampleRank:
    """Squared singular values of each image's tokens, as eigenvalues of its smaller Gram matrix."""

    def __init__(self, images: int) -> None:
        self._ranks = PerImage(images, len(ENERGY_SHARES), dtype=np.int64)
        self._sum: Floats = np.zeros(0)
        self._with_energy = 0

    def update(self, gram_BRR: Tensor) -> None:
        """Take images by their Gram matrices ``[B, r, r]``, of which only the upper triangle is read."""
        share_BR = energy_shares(gram_BRR)
        self._ranks.add(ranks_of(share_BR))
        if not self._sum.size:
            self._sum = np.zeros(share_BR.shape[1])
        self._sum += share_BR.sum(axis=0)
        self._with_energy += int(np.count_nonzero(share_BR[:, 0]))

    def finish(self) -> tuple[Counts, Floats]:
        """``TapResult.rank`` and ``TapResult.image_spectrum``."""
        return self._ranks.all(), self._sum / max(self._with_energy, 1)


def energy_shares(gram_BRR: Tensor) -> Floats:
    """Share of each squared singular value ``[B, r]``, largest first, of Gram matrices (upper triangles alone)."""
    return shares(torch.linalg.eigvalsh(gram_BRR, UPLO="U").flip(-1).cpu().numpy())


def ranks_of(share_BR: Floats) -> Counts:
    """Smallest number of directions ``[B, 4]`` whose leading ``share_BR`` hold ENERGY_SHARES."""
    return first_reaching(np.cumsum(share_BR, axis=-1), ENERGY_SHARES)
