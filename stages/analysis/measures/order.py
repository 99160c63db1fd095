"""What the order of channels contributes to SEP: the same tokens under random orders (DESIGN, section 3.4).

No token is transformed again for it. A spectral energy is a quadratic form of the token, so the area under a token's
folded curve is ``x^T T x / |x|^2`` with a circulant T, the area under a reordered token's curve is the same form with
T's rows and columns reordered, and the difference from the mean over orders is one form again. Likewise the mean share
at each frequency follows from ``S = sum x x^T / |x|^2`` alone: it is the FFT of the circular autocorrelation, the sums
of S along its diagonals (Wiener-Khinchin).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import circulant
from torch import Tensor

from stages.analysis.measures.spectrum import multiplicity
from stages.analysis.results import Counts, Floats

ORDERS = 20
"""P."""
SAMPLE = 16
"""Tokens of an image, at most."""


def channel_orders(width: int, seed: int) -> Counts:
    """P random orders of the channels ``[P, D]``, a function of width and seed alone."""
    random = np.random.default_rng([seed, width])
    return np.stack([random.permutation(width) for _ in range(ORDERS)])


class ChannelOrder:
    """SEP of a few tokens of each image, in their own order of channels and in P random ones.

    Args:
        width: D.
        tokens: N, of which SAMPLE are drawn for each image, by turns: the same ones however images are batched.
        seed: of the orders and of the tokens drawn.
    """

    def __init__(self, width: int, tokens: int, seed: int) -> None:
        self.width = width
        self.orders = channel_orders(width, seed)
        self._tokens = tokens
        self._random = np.random.default_rng([seed, width, tokens])
        frequencies = width // 2 + 1
        area = 1.0 - np.arange(frequencies) / frequencies  # frequency g counts in F - g of the F cumulative shares
        own = circulant(np.fft.irfft(area, n=width))
        reordered = np.zeros_like(own)
        for order in self.orders:
            reordered[np.ix_(order, order)] += own
        self._contrast = own - reordered / ORDERS
        self._moment: Floats = np.zeros((width, width))
        self._with_energy = 0
        self._effect: list[Floats] = []

    def update(self, X_BND: Tensor) -> None:
        """Take these images' tokens, images in the order of the whole sample."""
        size = min(SAMPLE, self._tokens)
        drawn_BK = np.stack([self._random.choice(self._tokens, size, replace=False) for _ in X_BND])
        drawn = torch.from_numpy(drawn_BK).to(X_BND.device)
        x_BKD = X_BND[torch.arange(len(X_BND), device=X_BND.device)[:, None], drawn].cpu().numpy()
        length_BK = np.sqrt(np.einsum("bkd,bkd->bk", x_BKD, x_BKD))
        live_BK = length_BK > 0
        x_BKD = x_BKD / np.where(live_BK, length_BK, 1.0)[..., None]
        effect_BK = np.einsum("bkd,bkd->bk", x_BKD @ self._contrast, x_BKD)
        live_B = live_BK.sum(axis=1)
        self._effect.append(np.where(live_B > 0, effect_BK.sum(axis=1) / np.maximum(live_B, 1), np.nan))
        x_TD = x_BKD.reshape(-1, self.width)
        self._moment += x_TD.T @ x_TD
        self._with_energy += int(live_B.sum())

    def finish(self) -> tuple[Floats, Floats, Floats]:
        """``TapResult.permuted``, ``sampled`` and ``order_effect``."""
        permuted = np.stack([self._shares(order) for order in self.orders])
        return permuted, self._shares(np.arange(self.width)), np.concatenate(self._effect)

    def _shares(self, order: Counts) -> Floats:
        """Mean share of the energy at each frequency ``[F]``, halves together, under this order."""
        lags = (np.arange(self.width)[:, None] + np.arange(self.width)) % self.width
        autocorrelation = self._moment[order[:, None], order[lags]].sum(axis=0)
        energy = np.maximum(np.fft.rfft(autocorrelation).real, 0.0)
        return np.asarray(energy * multiplicity(self.width) / (self.width * max(self._with_energy, 1)))
