"""A tap's tokens looked at in other ways than as they are: after the final norm, centred, standardised.

Energies of raw tokens follow *massive activations*: a few channels of great and nearly constant value, which the final
norm takes back and which carry next to nothing of an image (arXiv 2402.17762). What is said of raw tokens is said of
these, too, and the difference tells how far that can be trusted.

Second moment and mean give the shared basis of raw, centred and standardised tokens exactly, in the one pass; that of
normed tokens is summed up beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitcompress.stages.analysis.measures.directions import (
    add_upper,
    eigen_of,
    energy_shares,
    pca_ranks,
    ranks_of,
    shares,
    smaller_grams,
)
from vitcompress.stages.analysis.measures.spectrum import intensities
from vitcompress.stages.analysis.results import ENERGY_SHARES, OTHER_WAYS, Way

CONSTANT = 1e-12
"""A channel whose variance is no greater a share of its mean square is constant: float32 tokens are no finer."""


class OtherWays:
    """One tap in OTHER_WAYS: ``update`` with every image, then ``finish``.

    ``norm`` is the network's final norm, or None where it has none of this width; a float64 copy is used.
    """

    def __init__(self, width: int, device: torch.device, norm: nn.Module | None) -> None:
        self._norm = None if norm is None else copy.deepcopy(norm).to(device).double().eval().requires_grad_(False)
        self._sum = torch.zeros(width, dtype=torch.float64, device=device)
        self._tokens = 0
        self._normed = torch.zeros(width, width, dtype=torch.float64, device=device)

    def update(self, X_BND: Tensor) -> None:
        """Take these images' tokens, float64."""
        self._sum += X_BND.sum(dim=(0, 1))
        self._tokens += X_BND.shape[0] * X_BND.shape[1]
        if self._norm is not None:
            add_upper(self._normed, self._norm(X_BND).flatten(0, 1))

    def finish(self, upper_DD: Tensor, chunks: Iterable[Tensor], count: int) -> dict[str, NDArray[Any]]:
        """Return these fields of ``TapResult``.

        A constant channel stays out of the centred and standardised tokens. Intensities are computed in float32.

        ``upper_DD`` is the raw second moment over all images (its upper triangle is read); ``chunks`` are tokens
        ``[B, N, D]`` of the ``count`` images that are looked at in these ways.
        """
        energy_D = upper_DD.diagonal()
        mean = self._sum / self._tokens
        central_DD = upper_DD - torch.outer(self._sum, mean)
        varying = central_DD.diagonal() > CONSTANT * energy_D
        deviation = (central_DD.diagonal().clamp(min=0) / self._tokens).sqrt()
        scales: dict[Way, Tensor] = {
            "centred": varying.double(),
            "standardised": torch.where(varying, 1 / torch.where(varying, deviation, 1.0), 0.0),
        }
        moments: dict[Way, Tensor] = {way: central_DD * scale[:, None] * scale for way, scale in scales.items()}
        if self._norm is not None:
            moments["normed"] = self._normed
        spectra, bases = np.zeros((len(OTHER_WAYS), len(energy_D))), {}
        for way, moment in moments.items():
            spectra[OTHER_WAYS.index(way)], bases[way] = eigen_of(moment)
        shared, own = np.zeros((2, len(OTHER_WAYS), count, len(ENERGY_SHARES)), np.int64)
        intensity = np.full((len(OTHER_WAYS), count), np.nan)
        start = 0
        for X_BND in chunks:
            rows = slice(start, start + len(X_BND))
            start = rows.stop
            for way, basis in bases.items():
                tokens = self._seen(way, X_BND.double(), mean, scales)
                place = OTHER_WAYS.index(way), rows
                shared[place] = pca_ranks(tokens, basis)
                own[place] = ranks_of(energy_shares(smaller_grams(tokens)))
                intensity[place] = intensities(tokens.float())
        return {
            "way_spectrum": spectra,
            "way_pca_rank": shared,
            "way_rank": own,
            "way_intensity": intensity,
            "channel_energy": shares(energy_D.cpu().numpy()),
        }

    def _seen(self, way: Way, X_BND: Tensor, mean: Tensor, scales: dict[Way, Tensor]) -> Tensor:
        """Return the tokens in one way."""
        if way == "normed" and self._norm is not None:
            return torch.as_tensor(self._norm(X_BND))
        return (X_BND - mean) * scales[way]
