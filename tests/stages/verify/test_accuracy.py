from __future__ import annotations

import math

import numpy as np
import pytest

from stages.verify.accuracy import paired_drop, share_interval


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


def test_swapping_the_models_mirrors_the_interval() -> None:
    teacher, student = outcomes(50, 9, 3)
    drop, low, high = paired_drop(teacher, student)
    assert paired_drop(student, teacher) == pytest.approx((-drop, -high, -low))


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
