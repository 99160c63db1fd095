from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitcompress.stages.training.chance import (
    ERROR_RATE,
    against_chance,
    better_by_a_standard_error,
    chance_level,
    clearly_better,
)


def tail(correct: int, images: int, chance: float) -> float:
    """P(X >= correct), the sum written out."""
    return sum(comb(images, k) * chance**k * (1 - chance) ** (images - k) for k in range(correct, images + 1))


def test_chance_is_a_guess_or_the_commonest_class() -> None:
    assert chance_level(np.arange(10).repeat(3), 10) == pytest.approx(0.1)
    assert chance_level(np.array([0, 0, 0, 1]), 2) == 0.75
    assert chance_level(np.array([1, 0]), 10) == 0.5
    assert chance_level(np.arange(4), 2) == 0.5  # a guess among 2, though no class has more than a quarter


def test_by_hand() -> None:
    """Of 10 coins, 9 heads have a probability of 11 / 1024, 8 of 56 / 1024."""
    assert against_chance(9, 10, 0.5) == "better"
    assert against_chance(8, 10, 0.5) == "undecided"
    assert against_chance(0, 10, 0.5) == "undecided"  # a teacher right 3 times of 4 has 9 or 10 rarely enough
    assert against_chance(5, 100, 0.1) == "no better"
    assert against_chance(15, 100, 0.1) == "no better"  # 0.073
    assert against_chance(16, 100, 0.1) == "better"  # 0.040
    assert against_chance(7, 7, 1.0) == "undecided"  # one class alone: nothing can be better


@given(st.integers(1, 300), st.sampled_from([2, 3, 10, 100, 1000]), st.data())
def test_better_is_the_binomial_test_and_the_rest_does_not_depend_on_the_answers(
    images: int, classes: int, data: st.DataObject
) -> None:
    chance = 1 / classes
    correct = data.draw(st.integers(0, images))
    verdict = against_chance(correct, images, chance)
    assert (verdict == "better") == (tail(correct, images, chance) <= ERROR_RATE)
    if verdict != "better":
        assert verdict == against_chance(0, images, chance)
        enough = next((k for k in range(images + 1) if tail(k, images, chance) <= ERROR_RATE), images + 1)
        found = tail(enough, images, (1 + chance) / 2)
        assert (verdict == "no better") == (1 - found <= ERROR_RATE)


def answered(won: int, lost: int, both: int) -> tuple[np.ndarray, np.ndarray]:
    one = np.array([True] * won + [False] * lost + [True] * both)
    return one, np.array([False] * won + [True] * lost + [True] * both)


@pytest.mark.parametrize(
    ("won", "lost", "clearly"),
    [(0, 0, False), (5, 0, False), (6, 0, True), (0, 6, False), (9, 2, False), (10, 2, True), (300, 300, False)],
)
def test_clearly_better_is_mcnemars_exact_test(won: int, lost: int, clearly: bool) -> None:
    """Of 5 differing images all one's, p is 2 / 32; of 6, 2 / 64; of 11, 9 or more, 0.065; of 12, 10 or more, 0.039."""
    assert clearly_better(*answered(won, lost, 50)) == clearly


def test_a_standard_error_by_hand() -> None:
    """Of 100 images 10 are one's alone, k the other's: (10 - k) / 100 against sqrt((10 + k) / 100 - that ^ 2) / 10."""
    for k, more in ((5, True), (6, True), (7, False), (10, False)):  # 5: 5.0 against 3.8; 6: 4.00, 3.98; 7: 3.0, 4.1
        one, other = np.arange(100) < 10, (np.arange(100) >= 10) & (np.arange(100) < 10 + k)
        assert better_by_a_standard_error(one, other) == more
        assert not better_by_a_standard_error(other, one)
    assert not better_by_a_standard_error(one, one)
