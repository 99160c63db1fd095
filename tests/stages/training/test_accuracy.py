from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from vitcompress.stages.training.accuracy import calibration_error, paired_drop, share_interval


def outcomes(count: int, lost: int, won: int):
    """Teacher and student right or wrong on ``count`` images, ``lost`` and ``won`` of them differing."""
    teacher, student = np.ones(count, bool), np.ones(count, bool)
    student[:lost] = False
    teacher[lost : lost + won] = False
    return teacher, student


def test_drop_is_teacher_minus_student() -> None:
    drop, low, high = paired_drop(*outcomes(100, 7, 2))
    assert drop == pytest.approx(5.0)
    assert low < 5.0 < high


def test_agreement_on_few_images_is_not_certainty() -> None:
    _, low, high = paired_drop(*outcomes(100, 0, 0))
    assert (low, high) == (pytest.approx(-2.72, abs=0.01), pytest.approx(2.72, abs=0.01))
    assert paired_drop(*outcomes(10_000, 0, 0))[2] < 0.03


def test_every_table_has_its_drop_inside_its_interval() -> None:
    for count in (1, 2, 7, 20):
        for lost in range(count + 1):
            for won in range(count + 1 - lost):
                drop, low, high = paired_drop(*outcomes(count, lost, won))
                assert -100 <= low <= drop <= high <= 100


def test_exact_coverage_of_the_paired_interval() -> None:
    """Summed over every possible table of 60 images, so there is no simulation noise to allow for."""
    count = 60
    tables = [(b, c) for b in range(count + 1) for c in range(count + 1 - b)]
    ends = np.array([paired_drop(*outcomes(count, b, c))[1:] for b, c in tables]) / 100
    b, c = np.array(tables).T
    factorial = np.array([math.lgamma(i + 1) for i in range(count + 1)])
    ways = factorial[count] - factorial[b] - factorial[c] - factorial[count - b - c]
    covered = []
    for p in (0.005, 0.02, 0.05, 0.1, 0.2, 0.3):
        for q in (0.001, 0.01, 0.05, 0.1):
            chance = np.exp(ways + b * np.log(p) + c * np.log(q) + (count - b - c) * np.log(1 - p - q))
            covered.append(chance[(ends[:, 0] <= p - q) & (p - q <= ends[:, 1])].sum())
    assert min(covered) >= 0.93
    assert np.mean(covered) >= 0.95


def test_share_interval_at_the_ends_and_in_the_middle() -> None:
    share, low, high = share_interval(np.ones(100, bool))
    assert (share, high) == (100.0, 100.0)
    assert low == pytest.approx(96.3, abs=0.01)
    # Wilson's interval for 8 of 10, as published tables give it.
    assert share_interval(np.arange(10) < 8)[1:] == (pytest.approx(49.02, abs=0.01), pytest.approx(94.33, abs=0.01))


def test_a_lower_confidence_gives_a_narrower_interval_and_the_default_is_95() -> None:
    given = outcomes(1000, 40, 25)
    drop, low, high = paired_drop(*given)
    assert paired_drop(*given, confidence=0.95) == (drop, low, high)
    same, wide_low, wide_high = paired_drop(*given, confidence=0.98)
    assert same == drop
    assert wide_low < low < drop < high < wide_high
    assert (wide_high - wide_low) / (high - low) == pytest.approx(2.3263 / 1.96, abs=1e-4)


def naive_calibration_error(confidence, right, bins: int) -> float:
    """Guo et al. (2017), eq. 3, bin by bin."""
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for index, (low, high) in enumerate(pairwise(edges)):
        inside = (confidence > low) & (confidence <= high) | ((confidence == 0) & (index == 0))
        if inside.any():
            total += inside.sum() / len(right) * abs(right[inside].mean() - confidence[inside].mean())
    return 100 * total


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_calibration_error_is_the_sum_over_bins(bins: int) -> None:
    random = np.random.default_rng(bins)
    confidence = np.concatenate([random.random(500), np.linspace(0, 1, bins + 1), [0.0, 1.0]])  # edges too
    right = random.random(len(confidence)) < confidence**2
    assert calibration_error(confidence, right, bins) == pytest.approx(naive_calibration_error(confidence, right, bins))
    narrow = confidence.astype(np.float32)
    assert calibration_error(narrow, right, bins) == pytest.approx(
        naive_calibration_error(narrow.astype(float), right, bins)
    )


@pytest.mark.parametrize(
    ("confidence", "right"),
    [([], []), ([0.5, 0.5], [True]), ([1.1], [True]), ([-0.1], [True]), ([float("nan")], [True])],
)
def test_calibration_error_refuses_what_is_no_probability(confidence, right) -> None:
    with pytest.raises(ValueError, match=r"needed|probabilities"):
        calibration_error(np.array(confidence, dtype=float), np.array(right, dtype=bool))
