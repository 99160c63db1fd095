"""All measures of one tap, fed batch by batch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitcompress.core.errors import ResultError
from vitcompress.stages.analysis.measures.entropy import Magnitude, entropies
from vitcompress.stages.analysis.measures.moments import SecondMoment, smaller_grams
from vitcompress.stages.analysis.measures.order import ChannelOrder
from vitcompress.stages.analysis.measures.pca import pca_ranks
from vitcompress.stages.analysis.measures.rank import SampleRank
from vitcompress.stages.analysis.measures.spectrum import ChannelSpectra
from vitcompress.stages.analysis.measures.ways import OtherWays
from vitcompress.stages.analysis.results import Counts, Floats, TapResult, kept_rows

CHUNK = 2**19
"""Values measured at once on the CPU, whatever the batch's size: more take memory, with fewer threads wait for each
other."""


class TapMeasures:
    """One tap of a network: ``update`` with every batch, then ``finish``.

    Args:
        layer: index of the tap.
        name: as it is shown.
        images: n, how many will come.
        keep: ascending indices of the images whose tokens are kept (float32, in memory) for what can be computed only
            after all images: entropy and ``pca_rank``.
        seed: of the random orders of channels and the tokens they are tried on.
        norm: the network's final norm, where it has this tap's width.
        closely: how many of the kept images, at most, are looked at in the other ways, too: all by default.
    """

    def __init__(
        self,
        layer: int,
        name: str,
        images: int,
        keep: Counts,
        seed: int = 0,
        *,
        norm: nn.Module | None = None,
        closely: int | None = None,
    ) -> None:
        if images < 1:
            raise ResultError(f"{name} was to be measured over {images} images; give at least one.")
        self.layer = layer
        self.name = name
        self.images = images
        self.seen = 0
        self._keep = keep
        self._seed = seed
        self._norm = norm
        self._closely = kept_rows(len(keep), len(keep) if closely is None else closely)
        self._kept: NDArray[np.float32] | None = None

    @property
    def kept_bytes(self) -> int:
        """Memory of the kept tokens."""
        return 0 if self._kept is None else self._kept.nbytes

    def update(self, tokens: Tensor) -> None:
        """Take a batch ``[B, N, D]``, images in order; B may be 0.

        Raises:
            ResultError: more images than announced, another shape than before, or values that are not finite.
        """
        if tokens.ndim != 3 or 0 in tokens.shape[1:]:
            raise ResultError(f"{self.name} gave features of shape {tuple(tokens.shape)}, not [images, tokens, width].")
        if len(tokens) == 0:
            return
        if self.seen + len(tokens) > self.images:
            raise ResultError(f"{self.name} was to be measured over {self.images} images, and more came.")
        if self._kept is None:
            self._begin(tokens)
        elif tokens.shape[1:] != self._kept.shape[1:]:
            raise ResultError(
                f"{self.name} gave features of shape {list(tokens.shape[1:])} (tokens, width) after "
                f"{list(self._kept.shape[1:])}; all images must have one size."
            )
        tokens = tokens.detach()
        size = len(tokens) if tokens.device.type != "cpu" else max(1, CHUNK // (tokens.shape[1] * tokens.shape[2]))
        for chunk in torch.split(tokens, size):
            self._measure(chunk.float().contiguous())

    def _begin(self, tokens: Tensor) -> None:
        count, width = tokens.shape[1:]
        self._device = tokens.device
        self._kept = np.empty((len(self._keep), count, width), np.float32)
        self._magnitude = Magnitude(self.images)
        self._rank = SampleRank(self.images)
        self._moment = SecondMoment(width, tokens.device)
        self._spectra = ChannelSpectra(width, self.images, tokens.device)
        self._ways = OtherWays(width, tokens.device, self._norm)
        self._order = ChannelOrder(width, count, self.images, self._seed)

    def _measure(self, tokens: Tensor) -> None:
        X_BND = tokens.double()
        means = self._magnitude.update(X_BND)
        if not np.isfinite(means).all():
            at = self.seen + int(np.flatnonzero(~np.isfinite(means))[0])
            raise ResultError(
                f"{self.name} gave features that are not finite (NaN or infinite), first for image {at} of "
                f"{self.images}, so nothing was made of them; check the network's weights."
            )
        self._spectra.update(X_BND)  # while the tokens are in the cache
        gram = smaller_grams(X_BND)
        self._rank.update(gram)
        if X_BND.shape[1] > X_BND.shape[2]:
            self._moment.add_grams(gram)  # it is X^T X, as needed
        else:
            self._moment.add_tokens(X_BND)
        self._order.update(X_BND)
        self._ways.update(X_BND)
        self._store(tokens)
        self.seen += len(tokens)

    def _store(self, tokens: Tensor) -> None:
        first, last = np.searchsorted(self._keep, [self.seen, self.seen + len(tokens)])
        if self._kept is not None and last > first:
            for row in range(first, last):
                self._kept[row] = tokens[self._keep[row] - self.seen].cpu().numpy()

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest activation so far."""
        return self._magnitude.low, self._magnitude.high

    def finish(self, low: float | None = None, high: float | None = None) -> TapResult:
        """What is known of the tap. The kept tokens are let go.

        Args:
            low: where entropy's first bin begins, no greater than any activation; the tap's least one by default.
            high: where its last bin ends, likewise.

        Raises:
            ResultError: fewer images came than announced.
        """
        if self._kept is None or self.seen < self.images:
            raise ResultError(
                f"{self.name} was to be measured over {self.images} images, but only {self.seen} came; "
                "check that every image can be read."
            )
        rank, image_spectrum = self._rank.finish()
        pca_spectrum, basis = self._moment.eigen()
        sep_energy, sep_sorted, participation = self._spectra.sep()
        permuted, sampled, order_effect = self._order.finish()
        intensity, spectrum = self._spectra.amplitudes()
        low, high = (own if given is None else given for given, own in zip((low, high), self.range, strict=True))
        way_spectrum, channel_energy = self._ways.close(self._moment.upper())
        pca_rank, entropy = self._second_phase(self._kept, basis, low, high)
        way_pca_rank, way_rank, way_intensity = self._other_ways(self._kept)
        count, width = self._kept.shape[1:]
        self._kept = None
        return TapResult(
            layer=self.layer,
            name=self.name,
            width=width,
            tokens=count,
            images=self.images,
            rank=rank,
            image_spectrum=image_spectrum,
            pca_spectrum=pca_spectrum,
            pca_rank=pca_rank,
            normed=self._ways.normed,
            way_spectrum=way_spectrum,
            way_pca_rank=way_pca_rank,
            way_rank=way_rank,
            way_intensity=way_intensity,
            channel_energy=channel_energy,
            sep_energy=sep_energy,
            sep_sorted=sep_sorted,
            participation=participation,
            permuted=permuted,
            sampled=sampled,
            order_effect=order_effect,
            zero_tokens=self._spectra.zero_tokens,
            intensity=intensity,
            spectrum=spectrum,
            entropy=entropy,
            magnitude=self._magnitude.finish(),
            low=self._magnitude.low,
            high=self._magnitude.high,
        )

    def _second_phase(self, kept: NDArray[np.float32], basis: Tensor, low: float, high: float) -> tuple[Counts, Floats]:
        """``pca_rank`` and ``entropy`` of the kept images."""
        ranks, bits = [np.zeros((0, 4), np.int64)], [np.zeros(0)]
        size = max(1, CHUNK // (kept.shape[1] * kept.shape[2]))
        for start in range(0, len(kept), size):
            X_BND = kept[start : start + size]
            ranks.append(pca_ranks(torch.from_numpy(X_BND).to(self._device), basis))
            bits.append(entropies(X_BND.astype(np.float64), low, high))
        return np.concatenate(ranks), np.concatenate(bits)

    def _other_ways(self, kept: NDArray[np.float32]) -> tuple[Counts, Counts, Floats]:
        """``way_pca_rank``, ``way_rank`` and ``way_intensity`` of some of the kept images."""
        seen = []
        size = max(1, CHUNK // (kept.shape[1] * kept.shape[2]))
        for start in range(0, max(len(self._closely), 1), size):  # once even where nothing was kept, for the shapes
            X_BND = torch.from_numpy(kept[self._closely[start : start + size]])
            seen.append(self._ways.see(X_BND.to(self._device)))
        shared, own, intensity = (np.concatenate(parts, axis=1) for parts in zip(*seen, strict=True))
        return shared, own, intensity
