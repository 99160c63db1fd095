from __future__ import annotations

import numpy as np
import pytest

from vitcompress.stages.analysis.results import high_percentile, kept_rows
from vitcompress.stages.analysis.statistics import (
    MIN_IMAGES,
    RESAMPLES,
    drawn_times,
    intervals,
    resampled_rows,
)


def test_kept_images_are_spread_from_the_first_to_the_last() -> None:
    assert kept_rows(9, 3).tolist() == [0, 4, 8]
    for images in range(1, 80):
        for kept in range(1, images + 1):
            rows = kept_rows(images, kept)
            assert (np.diff(rows) > 0).all()
            assert (rows[0], len(rows)) == (0, kept)


@pytest.mark.parametrize(("images", "kept"), [(50, 50), (60, 20)])
def test_kept_images_and_the_others_are_drawn_apart_by_seed(images: int, kept: int) -> None:
    (rows,), (again,), (other,) = (resampled_rows(images, kept, seed) for seed in (0, 0, 1))
    assert rows.shape == (RESAMPLES, images)
    assert set(np.unique(rows[:, :kept])) == set(range(kept))
    assert set(np.unique(rows[:, kept:])) == set(range(kept, images))
    assert (rows == again).all()
    assert (rows != other).any()
    assert drawn_times(rows)[7].tolist() == np.bincount(rows[7], minlength=images).tolist()


def test_a_median_of_counts_is_covered_with_as_few_images_as_are_asked_for() -> None:
    """Skewed counts of median 250, as ranks of images are; the share of 300 samples is known within 0.025."""
    random = np.random.default_rng(0)
    covered = 0
    for sample in range(300):
        counts = np.round(250 * np.exp(random.normal(0, 0.25, MIN_IMAGES)))
        low, high = intervals(lambda rows, counts=counts: np.median(counts[rows], axis=1)[None], MIN_IMAGES, sample)
        covered += low[0] <= 250 <= high[0]
    assert 0.92 < covered / 300 < 0.98


def test_the_high_percentile_is_a_count_that_99_in_100_do_not_exceed() -> None:
    counts = np.arange(1000)
    assert high_percentile(counts) == 989  # 990 of the 1,000 are no larger
    assert high_percentile(np.stack([counts[:60], counts[60:120]])).tolist() == [59, 119]  # the largest
