"""Spectra over channels: spectral energy pattern [EM] and spectral intensity [SKD], of one FFT of each token.

A token's cumulative share is linear in its shares, so the mean of the curves is the curve of the mean shares, and only
these are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
        self._tokens = self._with_energy = 0
        self._share = torch.zeros(width // 2 + 1, dtype=torch.float64, device=device)
        self._amplitude = torch.zeros_like(self._share)
        self._ascending = torch.zeros(width, dtype=torch.float64, device=device)

    def update(self, X_BND: Tensor) -> tuple[Floats, Floats]:
        """Take these images' tokens; return their ``participation`` and ``intensity`` ``[B]``."""
        images, tokens, _ = X_BND.shape
        transformed_TF = torch.fft.rfft(X_BND.flatten(0, 1))
        energy_TF = transformed_TF.real.square().addcmul_(transformed_TF.imag, transformed_TF.imag)
        amplitude_TF = energy_TF.sqrt()
        self._amplitude += amplitude_TF.sum(dim=0)
        loudness_T = (amplitude_TF @ self._times) / self.width**2
        total_T = energy_TF @ self._times
        live_T = total_T > 0
        share_TF = energy_TF.div_(torch.where(live_T, total_T, 1.0)[:, None])  # without energy a token adds nothing
        self._share += share_TF.sum(dim=0)
        self._ascending += self._sorted(share_TF).sum(dim=0)
        concentration_T = share_TF.square_() @ self._times  # sum e^2 / (sum e)^2
        components_T = torch.where(live_T, 1.0 / torch.where(live_T, concentration_T, 1.0), 0.0)
        live_B = live_T.view(images, tokens).sum(dim=1)
        self._with_energy += int(live_B.sum())
        self._tokens += images * tokens
        participation = components_T.view(images, tokens).sum(dim=1) / live_B  # 0 / 0 is NaN
        return participation.cpu().numpy(), loudness_T.view(images, tokens).mean(dim=1).cpu().numpy()

    def _sorted(self, share_TF: Tensor) -> Tensor:
        """Return the shares of the whole FFT ``[T, D]``, least first."""
        whole_TD = torch.cat([share_TF, share_TF[:, 1 : (self.width + 1) // 2]], dim=1)
        if whole_TD.device.type != "cpu":
            return whole_TD.sort(dim=1).values
        whole_TD.numpy().sort(axis=1)  # with vector instructions: many times faster than torch.sort on the CPU
        return whole_TD

    def finish(self) -> dict[str, NDArray[Any]]:
        """Return these fields of ``TapResult``."""
        tokens = max(self._with_energy, 1)
        return {
            "sep_energy": (self._share * self._times).cpu().numpy() / tokens,
            "sep_sorted": np.cumsum(self._ascending.flip(0).cpu().numpy() / tokens),
            "spectrum": self._amplitude.cpu().numpy() / (self._tokens * self.width),
        }


def intensities(X_BND: Tensor) -> Floats:
    """Return the spectral intensity of each image ``[B]``, as ``TapResult.intensity``, of these tokens alone."""
    width = X_BND.shape[2]
    times = torch.from_numpy(multiplicity(width)).to(X_BND)
    amplitude_BNF = torch.fft.rfft(X_BND).abs()
    return np.asarray(((amplitude_BNF @ times).mean(dim=1) / width**2).double().cpu().numpy())
