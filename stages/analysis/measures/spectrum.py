"""Spectra over channels: spectral energy pattern [EM] and spectral intensity [SKD], of one FFT of each token.

A token's cumulative share is linear in its shares, so the mean of the curves is the curve of the mean shares, and only
these are kept.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vitcompress.stages.analysis.results import Floats


def multiplicity(width: int) -> Floats:
    """Return how often each frequency of a real FFT ``[F]`` is in the whole FFT of D: 2; once 0 and, D even, D / 2."""
    counts = np.full(width // 2 + 1, 2.0)
    counts[0] = 1.0
    if width % 2 == 0:
        counts[-1] = 1.0
    return counts


class ChannelSpectra:
    """Means over tokens and images of what the FFT over channels of each token says."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.width = width
        self._times = torch.from_numpy(multiplicity(width)).to(device)
        self._with_energy = 0
        self._share = torch.zeros(width // 2 + 1, dtype=torch.float64, device=device)

    def update(self, X_BND: Tensor) -> Floats:
        """Take these images' tokens; return their ``intensity`` ``[B]``."""
        images, tokens, _ = X_BND.shape
        transformed_TF = torch.fft.rfft(X_BND.flatten(0, 1))
        energy_TF = transformed_TF.real.square().addcmul_(transformed_TF.imag, transformed_TF.imag)
        amplitude_TF = energy_TF.sqrt()
        loudness_T = (amplitude_TF @ self._times) / self.width**2
        total_T = energy_TF @ self._times
        live_T = total_T > 0
        share_TF = energy_TF.div_(torch.where(live_T, total_T, 1.0)[:, None])  # without energy a token adds nothing
        self._share += share_TF.sum(dim=0)
        self._with_energy += int(live_T.sum())
        return np.asarray(loudness_T.view(images, tokens).mean(dim=1).cpu().numpy())

    def finish(self) -> Floats:
        """Return ``sep_energy`` of ``TapResult``."""
        return np.asarray((self._share * self._times).cpu().numpy() / max(self._with_energy, 1))


def intensities(X_BND: Tensor) -> Floats:
    """Return the spectral intensity of each image ``[B]``, as ``TapResult.intensity``, of these tokens alone."""
    width = X_BND.shape[2]
    times = torch.from_numpy(multiplicity(width)).to(X_BND)
    amplitude_BNF = torch.fft.rfft(X_BND).abs()
    return np.asarray(((amplitude_BNF @ times).mean(dim=1) / width**2).double().cpu().numpy())
