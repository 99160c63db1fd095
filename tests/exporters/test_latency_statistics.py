from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vitcompress.exporters.latency.statistics import (
    change_interval,
    median_interval,
    percentiles,
    speedup_interval,
)

Times = NDArray[np.float64]


def session_medians(
    rng: np.random.Generator, scales: tuple[float, ...], sessions: int, effect: float, outliers: float, rounds: int = 15
) -> list[Times]:
    """Medians ``[S]`` of models that share drift, are each placed differently in a session, and sometimes badly."""
    shared = rng.normal(0, 0.05, sessions)
    found = []
    for scale in scales:
        placed = rng.normal(0, effect, sessions) + (rng.random(sessions) < outliers) * rng.exponential(0.1, sessions)
        noise = np.abs(rng.normal(0, 0.05, (sessions, rounds)))
        found.append(scale * np.exp(shared + placed + np.median(noise, axis=1)))
    return found


@pytest.mark.parametrize(("samples", "reported"), [(20, False), (99, False), (100, True)])
def test_a_99th_percentile_needs_a_hundred_samples(samples: int, reported: bool) -> None:
    p50, p90, p99 = percentiles(np.arange(float(samples)))
    assert p50 < p90
    assert (p99 is not None) == reported


def test_shared_drift_cancels_and_the_seed_fixes_the_result() -> None:
    rng = np.random.default_rng(0)
    drift = np.linspace(1, 2, 10)
    teacher, student = 80 * drift, 40 * drift * rng.normal(1, 0.01, 10)
    ratio, low, high = speedup_interval(teacher, student, 500, 3)
    assert low <= ratio <= high
    assert high - low < 0.1  # alone, either median moves by a factor of two
    assert (ratio, low, high) == speedup_interval(teacher, student, 500, 3)


@pytest.mark.parametrize("sessions", [5, 8, 20])
@pytest.mark.parametrize(("effect", "outliers"), [(0.01, 0.0), (0.02, 0.1)])
def test_speedup_interval_covers_the_truth(sessions: int, effect: float, outliers: float) -> None:
    rng = np.random.default_rng(sessions)
    trials, hits = 400, 0
    for trial in range(trials):
        teacher, student = session_medians(rng, (100.0, 40.0), sessions, effect, outliers)
        _, low, high = speedup_interval(teacher, student, 400, trial)
        hits += low <= 2.5 <= high
    assert hits / trials >= 0.925  # 95 % less two standard errors of 400 trials


def test_median_interval_holds_the_median_of_all_samples() -> None:
    samples = np.concatenate([np.full(90, 10.0), np.full(10, 20.0)])  # one session much longer than the others
    median, low, high = median_interval(samples, np.array([10.0, 20.0, 20.0, 20.0, 20.0]), 500, 0)
    assert median == 10.0
    assert low <= 10.0 <= high
    assert high >= 20.0 * 0.9


def test_a_change_is_the_ratio_of_geometric_means() -> None:
    before, now = np.log([3.0, 3.1, 2.9, 3.0]), np.log([2.7, 2.8, 2.75, 2.72])
    ratio, low, high = change_interval(before, now, 0.98)
    assert ratio == pytest.approx(np.exp(before.mean() - now.mean()))
    assert low < ratio < high
    assert low * high == pytest.approx(ratio**2)  # symmetric in the logarithm
    assert change_interval(now, before, 0.98) == pytest.approx((1 / ratio, 1 / high, 1 / low))
    narrow = change_interval(before, now, 0.9)
    assert low < narrow[1] < narrow[2] < high


def test_change_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    trials, hits = 500, 0
    for _ in range(trials):
        before = rng.normal(1.0, 0.01, 6)
        now = rng.normal(1.0 - np.log(1.1), 0.03, 12)
        _, low, high = change_interval(before, now, 0.98)
        hits += low <= 1.1 <= high
    assert hits / trials >= 0.965


def test_a_time_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="too coarse"):
        speedup_interval(np.ones(2), np.zeros(2), 100, 0)
