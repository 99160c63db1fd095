"""The bootstrap over images (Efron & Tibshirani 1993)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.stages.analysis.results import Floats

Rows = NDArray[np.int64]
"""Numbers of images, drawn with replacement: ``[..., images]``."""

RESAMPLES = 1000
"""Draws: enough that a share of them is known within 0.03 (95 %, at 0.5)."""

MIN_IMAGES = 50
"""Fewer images support neither advice nor a verdict. Of 50 images the 95 % percentile interval of a median of counts
covers the true one in about 95 of 100 samples, as it should (``test_analysis_statistics.py`` measures it). A 99th
percentile is the largest of fewer than 100 images: of 50 it is in half of all samples above the true 98.6th percentile
(0.5 ** (1 / 50)), of 20 only above the 96.6th."""

CONFIDENCE = 0.95
MEAN_RESAMPLES = 1999
"""Draws for the interval of a mean: the ends of a 95 % interval are then the 50th value from below and from above."""

_BLOCK = 2**22
"""Drawn numbers held at once (32 MB)."""


def resampled_rows(images: int, kept: int, seed: int) -> Iterator[Rows]:
    """Yield draws of images with replacement, in blocks ``[draws, images]`` that add up to ``RESAMPLES``.

    The kept images stand first: 0 to kept - 1. They and the others are drawn apart, so that the leading ``kept``
    columns of a block are a draw of the kept images and all columns one of all images: quantities known of some images
    only are resampled jointly with those known of all.
    """
    random = np.random.default_rng(seed)
    size = max(1, _BLOCK // images)
    for start in range(0, RESAMPLES, size):
        draws = min(size, RESAMPLES - start)
        first = random.integers(0, kept, (draws, kept))
        others = random.integers(kept, images, (draws, images - kept)) if images > kept else first[:, :0]
        yield np.concatenate([first, others], axis=1)


def drawn_times(rows: Rows) -> Floats:
    """Return how often each image is in each draw, ``[draws, images]`` of ``rows [draws, images]``."""
    draws, images = rows.shape
    flat = rows + images * np.arange(draws)[:, None]
    return np.bincount(flat.ravel(), minlength=draws * images).reshape(draws, images).astype(np.float64)


def intervals(
    statistic: Callable[[Rows], Floats], images: int, seed: int, resamples: int = RESAMPLES
) -> tuple[Floats, Floats]:
    """Return the low and high ends of the 95 % percentile interval of k statistics that are drawn jointly.

    ``statistic`` goes from rows ``[draws, images]``, of at least 2 images, to ``[k, draws]``; both ends are ``[k]``.
    """
    from scipy import stats  # slow to import

    result = stats.bootstrap(
        (np.arange(images),),
        lambda rows, axis: statistic(rows),
        n_resamples=resamples,
        batch=max(1, _BLOCK // images),
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",  # BCa is undefined where an image changes nothing, as with medians of counts
        random_state=np.random.default_rng(seed),
    )
    return np.asarray(result.confidence_interval.low), np.asarray(result.confidence_interval.high)


def interval(values: Floats) -> dict[str, Any]:
    """Return ``mean`` over images ``[n]`` and its 95 % bootstrap ``interval``, None with fewer than 2 images.

    Images without a value (NaN) are left out. Of differences within an image, as ``order_effect``, it is a paired one.
    """
    known, ends = values[np.isfinite(values)], None
    if len(known) > 1:
        low, high = intervals(lambda rows: known[rows].mean(axis=-1)[None], len(known), 0, MEAN_RESAMPLES)
        ends = [float(low[0]), float(high[0])]
    return {"mean": float(known.mean()) if len(known) else None, "interval": ends}
