"""All measures of one tap, fed batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitcompress.core.errors import ResultError
from vitcompress.stages.analysis.measures.directions import (
    add_upper,
    eigen_of,
    energy_shares,
    pca_ranks,
    ranks_of,
    smaller_grams,
)
from vitcompress.stages.analysis.measures.entropy import entropies
from vitcompress.stages.analysis.measures.order import ChannelOrder
from vitcompress.stages.analysis.measures.spectrum import ChannelSpectra
from vitcompress.stages.analysis.measures.ways import OtherWays
from vitcompress.stages.analysis.results import ENERGY_SHARES, Counts, TapResult, kept_rows

CHUNK = 2**19
"""Values measured at once on the CPU, whatever the batch's size: more take memory, with fewer threads wait for each
other."""


class TapMeasures:
    """One tap of a network: ``update`` with every batch, then ``finish``.

    Of the ``images`` that will come, the tokens of those at the ascending indices ``keep`` are kept (float32, in
    memory) for what can be computed only after all images: entropy and ``pca_rank``. ``norm`` is the network's final
    norm, where it has this tap's width; ``closely`` is how many of the kept images, at most, are looked at in the other
    ways, too; None for all.
    """

    def __init__(
        self, layer: int, name: str, images: int, keep: Counts, *, norm: nn.Module | None, closely: int | None
    ) -> None:
        self.layer, self.name, self.images = layer, name, images
        self.seen = 0
        self.low, self.high = np.inf, -np.inf
        """Least and greatest activation so far."""
        self._keep, self._norm = keep, norm
        self._closely = kept_rows(len(keep), len(keep) if closely is None else closely)
        self._kept: NDArray[np.float32] | None = None
        # Whole from the start: small arrays that live on among large temporary ones would keep their memory from being
        # used again, half a megabyte an image and tap (``benchmarks/analysis.py --memory``).
        self._magnitude, self._participation, self._intensity = np.empty((3, images))
        self._rank = np.empty((images, len(ENERGY_SHARES)), np.int64)

    def update(self, tokens: Tensor) -> None:
        """Take a batch ``[B, N, D]``, images in order; B may be 0.

        A ResultError is raised if more images come than announced, or values are not finite.
        """
        if len(tokens) == 0:
            return
        if self.seen + len(tokens) > self.images:
            raise ResultError(f"{self.name} was to be measured over {self.images} images, and more came.")
        if self._kept is None:
            self._begin(tokens)
        size = len(tokens) if tokens.device.type != "cpu" else max(1, CHUNK // (tokens.shape[1] * tokens.shape[2]))
        for chunk in torch.split(tokens.detach(), size):
            self._measure(chunk.float().contiguous())

    def _begin(self, tokens: Tensor) -> None:
        count, width = tokens.shape[1:]
        self._device = tokens.device
        self._kept = np.empty((len(self._keep), count, width), np.float32)
        self._moment = torch.zeros(width, width, dtype=torch.float64, device=tokens.device)
        self._shares = np.zeros(min(count, width))
        self._with_energy = 0
        self._spectra = ChannelSpectra(width, tokens.device)
        self._ways = OtherWays(width, tokens.device, self._norm)
        self._order = ChannelOrder(width, count, self.images)

    def _measure(self, tokens: Tensor) -> None:
        X_BND, rows = tokens.double(), slice(self.seen, self.seen + len(tokens))
        means = X_BND.abs().mean(dim=(1, 2)).cpu().numpy()
        if not np.isfinite(means).all():
            at = self.seen + int(np.flatnonzero(~np.isfinite(means))[0])
            raise ResultError(
                f"{self.name} gave features that are not finite (NaN or infinite), first for image {at} of "
                f"{self.images}, so nothing was made of them; check the network's weights."
            )
        low, high = torch.aminmax(X_BND)
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        self._magnitude[rows] = means
        # while the tokens are in the cache
        self._participation[rows], self._intensity[rows] = self._spectra.update(X_BND)
        gram = smaller_grams(X_BND)
        share_BR = energy_shares(gram)
        self._rank[rows] = ranks_of(share_BR)
        self._shares += share_BR.sum(axis=0)
        self._with_energy += int(np.count_nonzero(share_BR[:, 0]))
        if X_BND.shape[1] > X_BND.shape[2]:
            self._moment += gram.sum(0)  # it is X^T X, as needed
        else:
            add_upper(self._moment, X_BND.flatten(0, 1))
        self._order.update(X_BND)
        self._ways.update(X_BND)
        first, last = np.searchsorted(self._keep, [rows.start, rows.stop])
        for row in range(first, last):
            self._kept[row] = tokens[self._keep[row] - self.seen].cpu().numpy()  # type: ignore[index]
        self.seen = rows.stop

    def finish(self, low: float, high: float) -> TapResult:
        """Return what is known of the tap. It releases the kept tokens.

        Entropy's bins go from ``low`` to ``high``; no activation is outside. A ResultError is raised if fewer images
        came than announced.
        """
        if self._kept is None or self.seen < self.images:
            raise ResultError(
                f"{self.name} was to be measured over {self.images} images, but only {self.seen} came; "
                "check that every image can be read."
            )
        kept, self._kept = self._kept, None
        pca_spectrum, basis = eigen_of(self._moment)
        pca_rank, entropy = np.zeros((len(kept), len(ENERGY_SHARES)), np.int64), np.zeros(len(kept))
        for rows in self._chunks(kept, np.arange(len(kept))):
            pca_rank[rows] = pca_ranks(torch.from_numpy(kept[rows]).to(self._device), basis)
            entropy[rows] = entropies(kept[rows].astype(np.float64), low, high)
        closely = (torch.from_numpy(kept[rows]).to(self._device) for rows in self._chunks(kept, self._closely))
        return TapResult(
            layer=self.layer,
            name=self.name,
            width=kept.shape[2],
            tokens=kept.shape[1],
            images=self.images,
            rank=self._rank,
            image_spectrum=self._shares / max(self._with_energy, 1),
            pca_spectrum=pca_spectrum,
            pca_rank=pca_rank,
            normed=self._norm is not None,
            entropy=entropy,
            low=self.low,
            high=self.high,
            intensity=self._intensity,
            magnitude=self._magnitude,
            participation=self._participation,
            **self._spectra.finish(),
            **self._order.finish(),
            **self._ways.finish(self._moment, closely, len(self._closely)),
        )

    @staticmethod
    def _chunks(kept: NDArray[np.float32], rows: Counts) -> Iterator[Counts]:
        """Yield the rows of kept images, as many as are measured at once."""
        size = max(1, CHUNK // (kept.shape[1] * kept.shape[2]))
        return (rows[start : start + size] for start in range(0, len(rows), size))
