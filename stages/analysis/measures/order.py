"""What the order of channels contributes to SEP: the same tokens under random orders (docs/analysis.md).

No token is transformed again for it. A spectral energy is a quadratic form of the token, so the area under a token's
folded curve is ``x^T T x / |x|^2`` with a circulant T, the area under a reordered token's curve is the same form with
T's rows and columns reordered, and the difference from the mean over orders is one form again. Likewise the mean share
at each frequency follows from ``S = sum x x^T / |x|^2`` alone: it is the FFT of the circular autocorrelation, the sums
of S along its diagonals (Wiener-Khinchin).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from scipy.linalg import circulant
from torch import Tensor

from vitcompress.stages.analysis.measures.directions import add_upper
from vitcompress.stages.analysis.measures.spectrum import multiplicity
from vitcompress.stages.analysis.results import Counts, Floats

SEED = 0
ORDERS = 20
"""P."""
SAMPLE = 16
"""Tokens of an image, at most."""
_TOGETHER = 16
"""Images whose tokens wait for each other, so that the ``[D, D]`` matrices are read from memory once for all."""


def channel_orders(width: int) -> Counts:
    """Return P random orders of the channels ``[P, D]``, always the same ones for a width."""
    random = np.random.default_rng([SEED, width])
    return np.stack([random.permutation(width) for _ in range(ORDERS)])


@lru_cache(maxsize=4)  # layers of one width share it
def _contrast(width: int) -> Tensor:
    """Return ``[D, D]``: the form of the area in the channels' own order, less the mean of those in random orders."""
    frequencies = width // 2 + 1
    area = 1.0 - np.arange(frequencies) / frequencies  # frequency g counts in F - g of the F cumulative shares
    own = circulant(np.fft.irfft(area, n=width))
    reordered = np.zeros_like(own)
    for order in channel_orders(width):
        reordered[np.ix_(order, order)] += own
    return torch.from_numpy(own - reordered / ORDERS)


class ChannelOrder:
    """SEP of a few of each image's N tokens, in their own order of the D channels and in P random ones.

    Which tokens is drawn image by image: the same ones however images are batched.
    """

    def __init__(self, width: int, tokens: int, images: int) -> None:
        self.width, self._tokens = width, tokens
        self._random = np.random.default_rng([SEED, width, tokens])
        self._moment = torch.zeros(width, width, dtype=torch.float64)
        self._drawn = torch.empty(_TOGETHER, min(SAMPLE, tokens), width, dtype=torch.float64)
        self._waiting = self._taken = self._with_energy = 0
        self._effect = np.empty(images)

    def update(self, X_BND: Tensor) -> None:
        """Take these images' tokens, images in the order of the whole sample."""
        for X_ND in X_BND:
            drawn = self._random.choice(self._tokens, self._drawn.shape[1], replace=False)
            self._drawn[self._waiting] = X_ND[torch.from_numpy(drawn).to(X_ND.device)].cpu()
            self._waiting += 1
            if self._waiting == _TOGETHER:
                self._take_waiting()

    def _take_waiting(self) -> None:
        x_BKD = self._drawn[: self._waiting]
        self._waiting = 0
        length_BK = torch.linalg.vector_norm(x_BKD, dim=2)
        live_BK = length_BK > 0
        x_BKD /= torch.where(live_BK, length_BK, 1.0)[..., None]
        effect_BK = ((x_BKD @ _contrast(self.width)) * x_BKD).sum(dim=2)
        taken = slice(self._taken, self._taken + len(x_BKD))
        self._effect[taken] = (effect_BK.sum(dim=1) / live_BK.sum(dim=1)).numpy()  # 0 / 0 is NaN
        self._taken = taken.stop
        add_upper(self._moment, x_BKD.flatten(0, 1))
        self._with_energy += int(live_BK.sum())

    def finish(self) -> dict[str, NDArray[Any]]:
        """Return these fields of ``TapResult``."""
        if self._waiting:
            self._take_waiting()
        upper = np.triu(self._moment.numpy())
        moment = upper + np.triu(upper, 1).T
        return {
            "permuted": np.stack([self._shares(moment, order) for order in channel_orders(self.width)]),
            "sampled": self._shares(moment, np.arange(self.width)),
            "order_effect": self._effect,
        }

    def _shares(self, moment: Floats, order: Counts) -> Floats:
        """Return the mean share of the energy at each frequency ``[F]``, halves together, under this order."""
        reordered = moment.take(order, axis=0).take(order, axis=1)
        # twice side by side, every lag's entries stand in one column of a view whose rows begin one further each
        twice = np.concatenate([reordered, reordered], axis=1)
        row, column = twice.strides
        lagged = as_strided(twice, (self.width, self.width), (row + column, column), writeable=False)
        energy = np.maximum(np.fft.rfft(lagged.sum(axis=0)).real, 0.0)
        return np.asarray(energy * multiplicity(self.width) / (self.width * max(self._with_energy, 1)))
