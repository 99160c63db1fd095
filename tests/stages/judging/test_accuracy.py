"""Shares, differences and tests of right answers against their definitions, and the calibration error."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vitcompress.stages.judging.accuracy import calibration_error, correct, paired_drop, share_interval, top1
from vitcompress.stages.judging.chance import (
    against_chance,
    better_by_a_standard_error,
    chance_of,
)

Bools = NDArray[np.bool_]


def outcomes(count: int, lost: int, won: int) -> tuple[Bools, Bools]:
    """Teacher and student right or wrong on ``count`` images, ``lost`` and ``won`` of them differing."""
    teacher, student = np.ones(count, bool), np.ones(count, bool)
    student[:lost] = False
    teacher[lost : lost + won] = False
    return teacher, student


def test_drop_is_teacher_minus_student_and_agreement_on_few_images_is_not_certainty() -> None:
    drop, low, high = paired_drop(*outcomes(100, 7, 2))
    assert drop == pytest.approx(5.0)
    assert low < drop < high
    _, low, high = paired_drop(*outcomes(100, 0, 0))
    assert (low, high) == (pytest.approx(-2.72, abs=0.01), pytest.approx(2.72, abs=0.01))
    assert paired_drop(*outcomes(10_000, 0, 0))[2] < 0.03


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


def test_a_lower_confidence_gives_a_narrower_interval_and_the_default_is_95() -> None:
    tables = outcomes(1000, 40, 25)
    drop, low, high = paired_drop(*tables)
    assert paired_drop(*tables, confidence=0.95) == (drop, low, high)
    same, wide_low, wide_high = paired_drop(*tables, confidence=0.98)
    assert same == drop
    assert (wide_high - wide_low) / (high - low) == pytest.approx(2.3263 / 1.96, abs=1e-4)


def test_share_interval_at_the_ends_and_in_the_middle() -> None:
    share, low, high = share_interval(np.ones(100, bool))
    assert (share, low, high) == (100.0, pytest.approx(96.3, abs=0.01), 100.0)
    # Wilson's interval for 8 of 10, as published tables give it.
    assert share_interval(np.arange(10) < 8)[1:] == (pytest.approx(49.02, abs=0.01), pytest.approx(94.33, abs=0.01))


def naive_calibration_error(confidence: NDArray[Any], right: Bools, bins: int) -> float:
    """Guo et al. (2017), eq. 3, bin by bin."""
    total = 0.0
    for index, (low, high) in enumerate(pairwise(np.linspace(0, 1, bins + 1))):
        inside = (confidence > low) & (confidence <= high) | ((confidence == 0) & (index == 0))
        if inside.any():
            total += inside.sum() / len(right) * abs(right[inside].mean() - confidence[inside].mean())
    return 100 * total


@pytest.mark.parametrize("bins", [1, 15])
def test_calibration_error_is_the_sum_over_bins(bins: int) -> None:
    random = np.random.default_rng(bins)
    confidence = np.concatenate([random.random(500), np.linspace(0, 1, bins + 1), [0.0, 1.0]])  # edges too
    right = random.random(len(confidence)) < confidence**2
    for given_ in (confidence, confidence.astype(np.float32)):
        wanted = naive_calibration_error(given_.astype(float), right, bins)
        assert calibration_error(given_, right, bins) == pytest.approx(wanted)


@pytest.mark.parametrize("confidence", [1.1, -0.1, float("nan")])
def test_calibration_error_refuses_what_is_no_probability(confidence: float) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        calibration_error(np.array([confidence]), np.array([True]))


def test_chance_is_a_guess_or_the_commonest_class() -> None:
    assert chance_of([3] * 10, 10) == pytest.approx(0.1)
    assert chance_of([3, 1], 2) == 0.75
    assert chance_of([1] * 4, 2) == 0.5  # a guess among 2, though no class has more than a quarter


@pytest.mark.parametrize(
    ("right", "images", "chance", "verdict"),
    [
        (9, 10, 0.5, "better"),  # of 10 coins, 9 heads have a probability of 11 / 1024, 8 of 56 / 1024
        (8, 10, 0.5, "undecided"),  # a teacher right 3 times of 4 has 9 or 10 rarely enough
        (15, 100, 0.1, "no better"),  # 0.073
        (16, 100, 0.1, "better"),  # 0.040
        (7, 7, 1.0, "undecided"),  # one class alone: nothing can be better
    ],
)
def test_against_chance_by_hand(right: int, images: int, chance: float, verdict: str) -> None:
    assert against_chance(right, images, chance) == verdict


def test_a_standard_error_by_hand() -> None:
    """Of 100 images 10 are one's alone, k the other's: (10 - k) / 100 against sqrt((10 + k) / 100 - that ^ 2) / 10."""
    for k, more in ((5, True), (6, True), (7, False), (10, False)):  # 5: 5.0 against 3.8; 6: 4.00, 3.98; 7: 3.0, 4.1
        one, other = outcomes(100, 10, k)
        assert better_by_a_standard_error(one, other) == more
        assert not better_by_a_standard_error(other, one)


def test_top1_and_top5_of_known_logits() -> None:
    logits = np.array([[0, 1, 2, 3, 4, 5, 6.0]] * 3, dtype=np.float32)
    labels = np.array([6, 2, 0])
    assert top1(logits, labels) == pytest.approx(100 / 3)
    assert correct(logits, labels, k=5).tolist() == [True, True, False]


def test_top1_agrees_with_argmax_ties_included() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.integers(0, 4, (500, 6)).astype(np.float32), rng.integers(0, 6, 500)
    np.testing.assert_array_equal(correct(logits, labels), logits.argmax(1) == labels)


def test_nan_counts_as_wrong_wherever_it_is() -> None:
    logits = np.array([[2.0, 1.0], [2.0, np.nan], [np.nan, 1.0], [np.nan, np.nan]])
    assert correct(logits, np.zeros(4, int)).tolist() == [True, False, False, False]
