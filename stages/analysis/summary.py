"""What tables, JSON and figures say of a tap's arrays: counts, percentiles, bands and intervals."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vitcompress.stages.analysis.results import (
    ENERGY_SHARES,
    SEP_SHARES,
    Counts,
    Floats,
    TapResult,
    first_reaching,
    high_percentile,
)

CONFIDENCE = 0.95
RESAMPLES = 1999
"""Bootstrap resamples: the ends of a 95 % interval are then the 50th value from below and from above."""
SEED = 0
Percent = Literal[50, 99]
PERCENTS: tuple[Percent, ...] = (50, 99)
"""Over images: the median, and the most demanding one in a hundred."""


@dataclass(frozen=True)
class Interval:
    """Mean over images with its bootstrap interval; None with a reason where there is none."""

    mean: float | None
    low: float | None
    high: float | None
    images: int
    """Images it is made of."""
    left_out: int
    """Images without a value (NaN)."""
    reason: str | None = None
    """Why there is no interval."""


def mean_interval(values: Floats) -> Interval:
    """Mean over images with a 95 % percentile bootstrap interval over images, seeded; images with NaN are left out.

    For values that are differences within an image, as ``order_effect``, the bootstrap is a paired one.

    Args:
        values: ``[n]``, one an image.
    """
    return cached_interval(np.ascontiguousarray(values, dtype=np.float64).tobytes())


@functools.lru_cache(maxsize=4096)
def cached_interval(data: bytes) -> Interval:
    """``mean_interval`` of float64 bytes: JSON, tables and figures ask for the same ones."""
    from scipy.stats import bootstrap  # slow to import, and nobody else of a run needs it

    values = np.frombuffer(data)
    known = values[np.isfinite(values)]
    left_out = len(values) - len(known)
    if len(known) < 2:
        mean = float(known[0]) if len(known) else None
        reason = f"{len(known)} images with a value; an interval over images needs 2"
        return Interval(mean, None, None, len(known), left_out, reason)
    found = bootstrap(
        (known,),
        np.mean,
        axis=-1,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=200,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(SEED),
    ).confidence_interval
    return Interval(float(known.mean()), float(found.low), float(found.high), len(known), left_out)


def percentile(counts: Counts, share: float, percent: Percent) -> float:
    """Median or 99th percentile over images of the counts for one of ENERGY_SHARES; NaN without images.

    Args:
        counts: ``[images, 4]``, a column for each of ENERGY_SHARES.
        share: which column.
        percent: 50, the mean of both middle ones of an even number; 99, as in ``high_percentile``.
    """
    column = counts[:, ENERGY_SHARES.index(share)]
    if not len(column):
        return float("nan")
    return float(np.median(column) if percent == 50 else high_percentile(column))


def pca_smallest(spectrum: Floats) -> Counts:
    """``[4]``: smallest d whose leading shared directions hold ENERGY_SHARES of the whole sample's energy [EM].

    Args:
        spectrum: ``[D]``: ``TapResult.pca_spectrum``, or a view's.
    """
    return first_reaching(np.cumsum(spectrum), ENERGY_SHARES)


def sep_curves(tap: TapResult) -> dict[str, Floats]:
    """Cumulative spectral energy of a tap: ``unfolded`` and ``sorted`` ``[D]``, ``folded`` ``[F]``."""
    return {"unfolded": tap.sep_unfolded, "folded": tap.sep_folded, "sorted": tap.sep_sorted}


def sep_smallest(curve: Floats, shares: tuple[float, ...] = SEP_SHARES) -> Counts:
    """``[k]``: first component (from 1) at which a curve of ``sep_curves`` reaches each share [EM]."""
    return first_reaching(curve, shares)


@dataclass(frozen=True)
class Permuted:
    """The folded curve of sampled tokens in the channels' own order beside P random orders."""

    curves: Floats
    """``[P, F]``: cumulative shares, one row an order."""
    own: Floats
    """``[F]``: in the channels' own order."""

    @property
    def areas(self) -> Floats:
        """``[P]``: area under each curve (its mean over frequencies)."""
        areas: Floats = self.curves.mean(axis=-1)
        return areas

    @property
    def d90(self) -> Counts:
        """``[P]``: frequencies (from 1) that hold 90 %."""
        return first_reaching(self.curves, (0.90,))[:, 0]


def permuted(tap: TapResult) -> Permuted:
    """The permutation baseline of a tap, as cumulative curves."""
    return Permuted(np.cumsum(tap.permuted, axis=-1), np.cumsum(tap.sampled))


def percent(share: float) -> str:
    """``0.95`` as ``95``: how shares are named in keys and columns."""
    return f"{100 * share:.0f}"
