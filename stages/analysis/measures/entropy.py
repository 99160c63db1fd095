"""Entropy [DD]: how spread a token's activations are over the tap's range (docs/analysis.md)."""

from __future__ import annotations

import numpy as np

from vitcompress.stages.analysis.results import Counts, Floats

BINS = 100
_NEAR = 1e-5
"""Of a bin's width: positions this close to an edge are compared with the edge itself; rounding moves them less."""


def bins_of(x: Floats, low: float, high: float) -> Counts:
    """Return the bin of each value, as ``np.histogram(x, 100, (low, high))`` has it: the last holds its upper edge."""
    position = x - low
    position *= BINS / (high - low)
    index = position.astype(np.int64)
    position -= np.rint(position)
    near = np.flatnonzero(np.abs(position, out=position) < _NEAR)  # the upper edge is among them
    if len(near):
        edges = np.linspace(low, high, BINS + 1)
        index.flat[near] = np.searchsorted(edges[1:-1], x.flat[near], side="right")
    return index


def entropies(X_BND: Floats, low: float, high: float) -> Floats:
    """Return the Shannon entropy (bits) of a token's channels in 100 bins, mean over an image's tokens, ``[B]``.

    ``X_BND`` are float64 ``[B, N, D]``. The bins go from ``low`` to ``high``, as all values do; where these are equal,
    the activations are constant and the entropy is 0.
    """
    images, tokens, width = X_BND.shape
    if low == high:
        return np.zeros(images)
    bins = bins_of(X_BND.reshape(images * tokens, width), low, high)
    bins += BINS * np.arange(images * tokens)[:, None]
    counts = np.bincount(bins.ravel(), minlength=BINS * images * tokens)
    share = np.arange(width + 1) / width  # counts are whole numbers, so every -p log p there can be is known
    surprise = -share * np.log2(np.where(share > 0, share, 1.0))
    return np.asarray(surprise[counts].reshape(images, -1).sum(axis=1) / tokens)
