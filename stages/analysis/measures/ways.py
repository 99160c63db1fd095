"""A tap's tokens looked at in other ways than as they are: after the final norm, centred, standardised.

Energies of raw tokens follow *massive activations*: a few channels of great and nearly constant value, which the final
norm takes back and which carry next to nothing of an image (arXiv 2402.17762). What is said of raw tokens is said of
these, too, and the difference tells how far that can be trusted.

Second moment and mean give the shared basis of raw, centred and standardised tokens exactly, in the one pass; that of
normed tokens is summed up beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from vitcompress.stages.analysis.measures.moments import SecondMoment, eigen_of, shares, smaller_grams
from vitcompress.stages.analysis.measures.pca import pca_ranks
from vitcompress.stages.analysis.measures.rank import energy_shares, ranks_of
from vitcompress.stages.analysis.measures.spectrum import intensities
from vitcompress.stages.analysis.results import ENERGY_SHARES, OTHER_WAYS, Counts, Floats, Way

CONSTANT = 1e-12
"""A channel whose variance is no greater a share of its mean square is constant: float32 tokens are no finer."""


class OtherWays:
    """One tap in OTHER_WAYS: ``update`` with every image, ``close``, then ``see`` those that were kept.

    Args:
        width: D.
        device: of the tokens.
        norm: the network's final norm, or None where it has none of this width; a float64 copy is used.
    """

    def __init__(self, width: int, device: torch.device, norm: nn.Module | None) -> None:
        self._norm = None if norm is None else copy.deepcopy(norm).to(device).double().eval().requires_grad_(False)
        self._sum = torch.zeros(width, dtype=torch.float64, device=device)
        self._tokens = 0
        self._normed = SecondMoment(width, device)
        self._spectra: Floats = np.zeros((len(OTHER_WAYS), width))
        self._bases: dict[Way, Tensor] = {}
        self._mean = self._sum
        self._scale: dict[Way, Tensor] = {}

    @property
    def normed(self) -> bool:
        """Whether there is a final norm."""
        return self._norm is not None

    def update(self, X_BND: Tensor) -> None:
        """Take these images' tokens, float64."""
        self._sum += X_BND.sum(dim=(0, 1))
        self._tokens += X_BND.shape[0] * X_BND.shape[1]
        if self._norm is not None:
            self._normed.add_tokens(self._norm(X_BND))

    def close(self, upper_DD: Tensor) -> tuple[Floats, Floats]:
        """``TapResult.way_spectrum`` and ``channel_energy``, of the raw second moment (its upper triangle is read).

        A constant channel stays out of the centred and standardised tokens.
        """
        energy_D = upper_DD.diagonal()
        self._mean = self._sum / max(self._tokens, 1)
        central_DD = upper_DD - torch.outer(self._sum, self._mean)
        varying = central_DD.diagonal() > CONSTANT * energy_D
        deviation = (central_DD.diagonal().clamp(min=0) / max(self._tokens, 1)).sqrt()
        self._scale = {
            "centred": varying.double(),
            "standardised": torch.where(varying, 1 / torch.where(varying, deviation, 1.0), 0.0),
        }
        moments: dict[Way, Tensor] = {way: central_DD * scale[:, None] * scale for way, scale in self._scale.items()}
        if self._norm is not None:
            moments["normed"] = self._normed.upper()
        for way, moment in moments.items():
            self._spectra[OTHER_WAYS.index(way)], self._bases[way] = eigen_of(moment)
        return self._spectra, shares(energy_D.cpu().numpy())

    def see(self, X_BND: Tensor) -> tuple[Counts, Counts, Floats]:
        """Of images that were kept, after ``close``, what ``TapResult`` has in OTHER_WAYS.

        Args:
            X_BND: their tokens, float32 values; B may be 0.

        Returns:
            ``way_pca_rank [3, B, 4]``, ``way_rank [3, B, 4]``, ``way_intensity [3, B]`` (computed in float32).
        """
        shape = (len(OTHER_WAYS), len(X_BND))
        shared, own = np.zeros((2, *shape, len(ENERGY_SHARES)), np.int64)
        intensity = np.full(shape, np.nan)
        for way, tokens_BND in self._seen(X_BND.double()) if len(X_BND) else ():
            row = OTHER_WAYS.index(way)
            shared[row] = pca_ranks(tokens_BND, self._bases[way])
            own[row] = ranks_of(energy_shares(smaller_grams(tokens_BND)))
            intensity[row] = intensities(tokens_BND.float())
        return shared, own, intensity

    def _seen(self, X_BND: Tensor) -> Iterator[tuple[Way, Tensor]]:
        if self._norm is not None:
            yield "normed", self._norm(X_BND)
        for way, scale in self._scale.items():
            yield way, (X_BND - self._mean) * scale
