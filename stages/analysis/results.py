"""What is known of a network after it was read: numbers of each tap, as arrays, made by ``measures``.

Letters: D width of the tap (channels), N patch tokens of an image, n images, m kept images (second-phase quantities),
F = D // 2 + 1 frequencies of a real FFT over channels. Sources: [EM] arXiv 2511.15572, [SKD] arXiv 2412.19055,
[DD] arXiv 2511.06848.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

ENERGY_SHARES = (0.80, 0.90, 0.95, 0.99)
"""Shares of an image's energy for which the smallest number of directions is counted [EM]."""
SEP_SHARES = (0.50, 0.60, 0.70, 0.80, 0.90)
"""Shares of a token's spectral energy, likewise [EM]."""
Way = Literal["raw", "normed", "centred", "standardised"]
"""How a tap's tokens are looked at: as they are [EM]; after the network's own final norm, as later layers and its
classifier read them; less their mean over all images' tokens; and each channel of that over its standard deviation."""
WAYS: tuple[Way, ...] = get_args(Way)
OTHER_WAYS = WAYS[1:]
WAY_WORDS: dict[Way, str] = {way: "after the final norm" if way == "normed" else way for way in WAYS}
TIE = 1e-9
"""A share counts as reached from this much below it, so that equal energies do not depend on rounding."""


def first_reaching(shares: Floats, targets: tuple[float, ...]) -> Counts:
    """Return the smallest count d (from 1) whose leading ``d`` entries hold each target share.

    ``shares`` are cumulative ``[..., D]``, non-decreasing, all zeros without energy; ``targets`` are k of them, all
    in (0, 1). The counts are int64 ``[..., k]``, 0 where the shares are all zero (nothing needs no direction).
    """
    wanted = np.asarray(targets) - TIE
    below = np.count_nonzero(shares[..., None, :] < wanted[:, None], axis=-1)
    return np.where(below == shares.shape[-1], 0, below + 1).astype(np.int64)


def high_percentile(counts: Counts) -> Counts:
    """Return of counts ``[..., images]`` the least one that at least 99 % of the images do not exceed ``[...]``.

    The only 99th percentile of this project (the inverse of the empirical distribution): a count that some image has,
    where interpolation would make one up; of fewer than 100 images the largest.
    """
    return np.asarray(np.percentile(counts, 99, axis=-1, method="inverted_cdf"), dtype=np.int64)


def relative_depths(taps: int) -> Floats:
    """Return where each tap is in its network ``[taps]``, 0 the first and 1 the last; an only one is the last."""
    return np.linspace(0.0, 1.0, taps) if taps > 1 else np.ones(taps)


def kept_rows(images: int, kept: int) -> Counts:
    """Return the numbers ``[kept]`` of the images whose tokens a tap keeps: spread evenly from first to last."""
    return np.rint(np.linspace(0, images - 1, min(kept, images))).astype(np.int64)


@dataclass(frozen=True)
class View:
    """A tap's tokens in one of WAYS: ``pca_spectrum``, ``pca_rank``, ``rank`` and ``intensity`` of ``TapResult``.

    In other ways than raw they are of the k images of ``viewed_rows``.
    """

    spectrum: Floats
    shared: Counts
    own: Counts
    intensity: Floats


@dataclass(frozen=True)
class TapResult:
    """One tap over all images. Arrays are float64 unless they count."""

    layer: int
    name: str
    """``block 3`` or ``stage 3``, counted from 0."""
    width: int
    tokens: int
    images: int
    """n: images that every one-pass quantity is made of."""

    # Sample-wise SVD [EM]: of each image's tokens X [N, D].
    rank: Counts
    """``[n, 4]``: smallest d whose leading singular values hold ENERGY_SHARES of the image's energy."""
    image_spectrum: Floats
    """``[min(N, D)]``: share of each singular value's energy, largest first, mean over images with energy."""

    # Dataset PCA [EM]: one uncentred basis for all images.
    pca_spectrum: Floats
    """``[D]``: share of each eigenvalue of C = sum X^T X / tokens, largest first; zeros where there is no energy."""
    pca_rank: Counts
    """``[m, 4]``: of each kept image, smallest d whose leading shared basis vectors hold ENERGY_SHARES of it."""

    # The same, and intensity, in OTHER_WAYS, in their order: zeros (NaN for intensity) without a final norm.
    normed: bool
    """Whether the network has a final norm, of this tap's width."""
    way_spectrum: Floats
    """``[3, D]``: ``pca_spectrum``."""
    way_pca_rank: Counts
    """``[3, k, 4]``: ``pca_rank`` of k of the kept images (``viewed_rows``): of all of them at the last tap."""
    way_rank: Counts
    """``[3, k, 4]``: ``rank`` of the same ones."""
    way_intensity: Floats
    """``[3, k]``: ``intensity`` of the same ones."""
    channel_energy: Floats
    """``[D]``: share of the energy in each channel, raw; zeros where there is no energy."""

    # SEP [EM]: of each token, the energy of its FFT over channels.
    sep_energy: Floats
    """``[F]``: share of the energy at each frequency, both halves of the spectrum together (folded), mean over tokens
    with energy; sums to 1."""
    sep_sorted: Floats
    """``[D]``: the D energies of the whole FFT, sorted per token, largest first, as cumulative share, mean over tokens
    with energy."""
    participation: Floats
    """``[n]``: (sum e)^2 / sum e^2 of a token's D spectral energies e, mean over the image's tokens with energy (NaN
    without any): how many components carry a token; D for a flat spectrum, 1 or 2 for a single tone."""
    permuted: Floats
    """``[P, F]``: ``sep_energy`` of the sampled tokens under each of P random orders of the channels."""
    sampled: Floats
    """``[F]``: ``sep_energy`` of the same sampled tokens in the channels' own order."""
    order_effect: Floats
    """``[n]``: of each image's sampled tokens, area under the folded cumulative curve (its mean over the F frequencies)
    in the channels' own order less that under the P orders, their mean: what the order of channels contributes. NaN
    without energy."""

    # Spectral intensity [SKD].
    intensity: Floats
    """``[n]``: mean over tokens and all D frequencies of |FFT over channels| / D."""
    spectrum: Floats
    """``[F]``: mean over images and tokens of |FFT| / D at each frequency."""

    # Entropy and magnitude [DD].
    entropy: Floats
    """``[m]``: Shannon entropy (bits) of each token's channels in 100 bins over the range of all the network's taps,
    least to greatest activation over all images, as in the code of [DD]; mean over the tokens of each kept image."""
    magnitude: Floats
    """``[n]``: mean absolute activation."""
    low: float
    high: float
    """Least and largest activation of the tap over all n images."""

    @property
    def kept(self) -> int:
        """m: images that second-phase quantities (``pca_rank``, ``entropy``) are made of."""
        return len(self.entropy)

    @property
    def viewed_rows(self) -> Counts:
        """Numbers ``[k]`` of the images that were looked at in the other ways, spread evenly over the kept ones."""
        kept = kept_rows(self.images, self.kept)
        return kept[kept_rows(len(kept), self.way_rank.shape[1])]

    @property
    def ways(self) -> tuple[Way, ...]:
        """Those of WAYS in which the tap was measured."""
        return tuple(way for way in WAYS if way != "normed" or self.normed)

    def view(self, way: Way) -> View:
        """Return what was measured in one of ``ways``."""
        if way == "raw":
            return View(self.pca_spectrum, self.pca_rank, self.rank, self.intensity)
        row = OTHER_WAYS.index(way)
        return View(self.way_spectrum[row], self.way_pca_rank[row], self.way_rank[row], self.way_intensity[row])

    def strongest_channels(self, count: int) -> tuple[Counts, float]:
        """Return the channels of most energy, strongest first, and the share of the energy that they hold together."""
        order = np.argsort(-self.channel_energy, kind="stable")[:count].astype(np.int64)
        return order, float(self.channel_energy[order].sum())

    @property
    def sep_unfolded(self) -> Floats:
        """``[D]``: cumulative share over the whole FFT in its own order (0, 1, ..., D-1), as published [EM].

        By conjugate symmetry (D even) it stands at ``1/2 + (e_0 - e_{D/2}) / 2`` after D / 2 components: near 1/2
        whatever the features are, unless tokens have a large mean over their channels.
        """
        half = self.sep_energy.copy()
        paired = slice(1, (self.width + 1) // 2)  # every frequency but 0 and, for even D, D / 2 stands twice
        half[paired] /= 2
        mirrored = half[paired][::-1]
        return np.cumsum(np.concatenate([half, mirrored]))


@dataclass(frozen=True)
class NetworkResult:
    """A network, tap by tap."""

    label: str
    """``teacher``, ``student before``, ``student epoch 8``, ``student after``, or a model's name."""
    arch: str
    taps: tuple[TapResult, ...]
    """In order of depth."""
    sample: str
    """Which images, in words."""
    forward_seconds: float
    measure_seconds: float
    """Apart from the forward pass."""
    epoch: int | None = None
    """Of a checkpoint: epochs trained; 0 before training; None for networks that were not followed."""
