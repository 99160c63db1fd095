"""Spectra over channels: SEP with what can tell models apart [EM], and spectral intensity [SKD] (DESIGN, 3.4).

One FFT of each token serves all of them. A token's cumulative share is linear in its shares, so the mean of the curves
is the curve of the mean shares, and only these are kept.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stages.analysis.results import Floats


def multiplicity(width: int) -> Floats:
    """How often each frequency of a real FFT ``[F]`` stands in the whole FFT of D: 2; once for 0 and, D even, D / 2."""
    counts = np.full(width // 2 + 1, 2.0)
    counts[0] = 1.0
    if width % 2 == 0:
        counts[-1] = 1.0
    return counts


class ChannelSpectra:
    """Means over tokens and images of what the FFT over channels of each token says."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.width = width
        self.zero_tokens = 0
        self._times = torch.from_numpy(multiplicity(width)).to(device)
        self._images = self._with_energy = 0
        self._share = torch.zeros(width // 2 + 1, dtype=torch.float64, device=device)
        self._amplitude = torch.zeros_like(self._share)
        self._ascending = torch.zeros(width, dtype=torch.float64, device=device)
        self._participation: list[Floats] = []
        self._intensity: list[Floats] = []

    def update(self, X_BND: Tensor) -> None:
        """Take these images' tokens."""
        transformed = torch.fft.rfft(X_BND)
        energy_BNF = transformed.real.square() + transformed.imag.square()
        self._take_amplitude(energy_BNF)
        total_BN = energy_BNF @ self._times
        live_BN = total_BN > 0
        share_BNF = energy_BNF / torch.where(live_BN, total_BN, 1.0)[..., None]  # a token without energy adds nothing
        self._share += share_BNF.sum(dim=(0, 1))
        self._take_participation(share_BNF, live_BN)
        self._ascending += self._sorted(share_BNF).sum(dim=0)
        live = int(live_BN.sum())
        self._with_energy += live
        self.zero_tokens += live_BN.numel() - live

    def _take_amplitude(self, energy_BNF: Tensor) -> None:
        mean_BF = energy_BNF.sqrt().mean(dim=1) / self.width
        self._amplitude += mean_BF.sum(dim=0)
        self._images += len(mean_BF)
        self._intensity.append((mean_BF @ self._times / self.width).cpu().numpy())

    def _take_participation(self, share_BNF: Tensor, live_BN: Tensor) -> None:
        concentration_BN = share_BNF.square() @ self._times  # sum e^2 / (sum e)^2
        components_BN = torch.where(live_BN, 1.0 / torch.where(live_BN, concentration_BN, 1.0), 0.0)
        self._participation.append((components_BN.sum(dim=1) / live_BN.sum(dim=1)).cpu().numpy())  # 0 / 0 is NaN

    def _sorted(self, share_BNF: Tensor) -> Tensor:
        """Shares of the whole FFT ``[T, D]``, least first."""
        share_TF = share_BNF.flatten(0, 1)
        whole_TD = torch.cat([share_TF, share_TF[:, 1 : (self.width + 1) // 2]], dim=1)
        if whole_TD.device.type != "cpu":
            return whole_TD.sort(dim=1).values
        values = whole_TD.numpy()
        values.sort(axis=1)  # of vector instructions, and with them 20 times faster than torch's
        return torch.from_numpy(values)

    def sep(self) -> tuple[Floats, Floats, Floats]:
        """``TapResult.sep_energy``, ``sep_sorted`` and ``participation``."""
        tokens = max(self._with_energy, 1)
        energy = (self._share * self._times).cpu().numpy() / tokens
        descending = self._ascending.flip(0).cpu().numpy() / tokens
        return energy, np.cumsum(descending), np.concatenate(self._participation)

    def amplitudes(self) -> tuple[Floats, Floats]:
        """``TapResult.intensity`` and ``spectrum``."""
        return np.concatenate(self._intensity), self._amplitude.cpu().numpy() / self._images
