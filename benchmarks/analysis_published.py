"""The published feature analysis, written down plainly in NumPy: features on disk, then one image and layer at a time.

[EM] arXiv 2511.15572 (sample-wise SVD, dataset PCA, SEP), [SKD] arXiv 2412.19055 (spectral intensity), [DD] arXiv
2511.06848 (entropy, magnitude). Letters: n images, N patch tokens, D channels.

Precisions are those of the papers' code: the SVD, the FFT and the products of the PCA in float32, as the features are;
sums over images and the eigenvectors in float64. Where theirs repeats itself, this does not: the features are read
once, and one FFT serves both papers that need it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Features = NDArray[np.float32]

ENERGY_SHARES = (0.80, 0.90, 0.95, 0.99)
SEP_SHARES = (0.50, 0.60, 0.70, 0.80, 0.90)
BINS = 100
PARTS = ("write", "read", "SVD", "PCA", "FFT", "entropy", "magnitude")
"""What the procedure is made of, in order."""
VALUES_ONLY = "singular values only"
"""Timed besides, as no part of it: the SVD without its vectors, which nothing here reads."""


@dataclass(frozen=True)
class PublishedTap:
    """The published numbers of one layer."""

    rank: NDArray[np.int64]
    """``[n, 4]``."""
    image_spectrum: Floats
    """``[min(N, D)]``: mean over images of each singular value's share of the energy."""
    pca_spectrum: Floats
    """``[D]``."""
    pca_rank: NDArray[np.int64]
    """``[n, 4]``."""
    sep_curve: Floats
    """``[D]``: cumulative, in the order of the FFT, mean over tokens."""
    sep_rank: NDArray[np.int64]
    """``[5]``: of the mean curve."""
    intensity: Floats
    """``[n]``."""
    spectrum: Floats
    """``[D]``."""
    entropy: Floats
    """``[n]``, bits."""
    magnitude: Floats
    """``[n]``."""
    low: float
    high: float


@dataclass
class Clock:
    """Seconds by part."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        """Time the block."""
        started = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - started


def reaching(curve: Any, targets: Sequence[float]) -> list[int]:
    """Smallest d, from 1, whose cumulative share reaches each target."""
    return [int(np.argmax(curve >= target)) + 1 for target in targets]


def sample_svd(X_nND: Features) -> tuple[NDArray[np.int64], Floats]:
    """[EM] of each image's tokens: directions needed, and mean spectrum."""
    ranks, spectra = [], []
    for X in X_nND:
        _, s, _ = np.linalg.svd(X, full_matrices=False)
        energy = s.astype(np.float64) ** 2
        share = energy / energy.sum()
        ranks.append(reaching(np.cumsum(share), ENERGY_SHARES))
        spectra.append(share)
    return np.array(ranks), np.mean(spectra, axis=0)


def dataset_pca(X_nND: Features) -> tuple[Floats, NDArray[np.int64]]:
    """[EM] one uncentred basis for all images: its spectrum, and the directions that each image needs."""
    C = np.zeros((X_nND.shape[-1],) * 2)
    for X in X_nND:
        C += X.T @ X
    values, vectors = np.linalg.eigh(C / (X_nND.shape[0] * X_nND.shape[1]))
    values, V = np.clip(values[::-1], 0.0, None), vectors[:, ::-1].astype(np.float32)
    ranks = []
    for X in X_nND:
        energy = ((X @ V) ** 2).sum(axis=0, dtype=np.float64)
        ranks.append(reaching(np.cumsum(energy) / energy.sum(), ENERGY_SHARES))
    return values / values.sum(), np.array(ranks)


def channel_fft(X_nND: Features) -> dict[str, Any]:
    """[EM] SEP and [SKD] spectral intensity, of the same FFT over the channels of every token."""
    curve, spectrum, intensity = 0.0, 0.0, []
    for X in X_nND:
        magnitude = np.abs(np.fft.fft(X, axis=-1))
        energy = magnitude**2
        cumulative = np.cumsum(energy, axis=-1) / energy.sum(axis=-1, keepdims=True)
        curve = curve + cumulative.mean(axis=0, dtype=np.float64)
        amplitude = magnitude.mean(axis=0, dtype=np.float64) / X.shape[-1]
        spectrum = spectrum + amplitude
        intensity.append(amplitude.mean())
    mean = np.asarray(curve / len(X_nND))
    return {
        "sep_curve": mean,
        "sep_rank": np.array(reaching(mean, SEP_SHARES)),
        "spectrum": np.asarray(spectrum / len(X_nND)),
        "intensity": np.array(intensity),
    }


def token_entropy(X_nND: Features, low: float, high: float) -> Floats:
    """[DD] entropy of each token's channels over the range of all layers, mean over an image's tokens."""
    entropies = []
    for X in X_nND:
        bits = []
        for token in X:
            counts, _ = np.histogram(token, bins=BINS, range=(low, high))
            p = counts[counts > 0] / counts.sum()
            bits.append(-(p * np.log2(p)).sum())
        entropies.append(np.mean(bits))
    return np.array(entropies)


def analyse_layer(X_nND: Features, low: float, high: float, clock: Clock) -> PublishedTap:
    """Everything published about one layer's features ``[n, N, D]``, each part timed."""
    with clock.running("SVD"):
        rank, image_spectrum = sample_svd(X_nND)
    with clock.running("PCA"):
        pca_spectrum, pca_rank = dataset_pca(X_nND)
    with clock.running("FFT"):
        spectral = channel_fft(X_nND)
    with clock.running("entropy"):
        entropy = token_entropy(X_nND, low, high)
    with clock.running("magnitude"):
        magnitude = np.abs(X_nND).mean(axis=(1, 2), dtype=np.float64)
    return PublishedTap(
        rank=rank,
        image_spectrum=image_spectrum,
        pca_spectrum=pca_spectrum,
        pca_rank=pca_rank,
        entropy=entropy,
        magnitude=magnitude,
        low=float(X_nND.min()),
        high=float(X_nND.max()),
        **spectral,
    )


def analyse(features: Sequence[Features], folder: Path) -> tuple[list[PublishedTap], dict[str, float]]:
    """The published procedure over ``features``, one array ``[n, N, D]`` a layer, by way of files in ``folder``.

    Returns:
        numbers of every layer, and seconds by part.
    """
    clock = Clock()
    with clock.running("write"):
        for layer, X_nND in enumerate(features):
            np.save(folder / f"layer_{layer:02d}.npy", X_nND)
    found = []
    with clock.running("entropy"):
        low, high = float(min(X.min() for X in features)), float(max(X.max() for X in features))
    for layer in range(len(features)):
        with clock.running("read"):
            loaded = np.load(folder / f"layer_{layer:02d}.npy")
        found.append(analyse_layer(loaded, low, high, clock))
    return found, dict(clock.seconds)


def seconds_of_values(features: Sequence[Features]) -> float:
    """Seconds of the SVD of every image and layer without its vectors."""
    started = time.perf_counter()
    for X_nND in features:
        for X in X_nND:
            np.linalg.svd(X, compute_uv=False)
    return time.perf_counter() - started
