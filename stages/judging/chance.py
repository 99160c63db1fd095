"""Tests of a network's answers (torch-free): against guessing, and of two classifiers on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ERROR_RATE = 0.05
"""Largest probability of either wrong verdict, as in the 95 % intervals of the report."""


def chance_of(class_images: Sequence[int], classes: int) -> float:
    """Return top-1 by chance, a share, by the images of each class: a guess's, or the commonest class's if larger."""
    return float(max(1 / classes, max(class_images) / sum(class_images)))


def against_chance(correct: int, images: int, chance: float) -> Literal["better", "no better", "undecided"]:
    """Do a one-sided exact binomial test of ``correct`` right answers on ``images`` images.

    Under the null hypothesis every answer is right with probability q = ``chance``, so that the p-value is
    P(X >= correct) = sum over k from correct to n of C(n, k) q^k (1 - q)^(n - k), with n = ``images``.

    Returns:
        ``better`` if the p-value is at most ``ERROR_RATE``. Otherwise ``no better``, or ``undecided`` when n is too
        small for that: a network making half of chance's errors, right with probability (1 + q) / 2, would fall short
        of ``better`` with a probability above ``ERROR_RATE``.
    """
    from scipy.stats import binom  # a second to import

    if binom.sf(correct - 1, images, chance) <= ERROR_RATE:
        return "better"
    enough = binom.isf(ERROR_RATE, images, chance) + 1  # the fewest right answers that count as better
    missed = binom.cdf(enough - 1, images, (1 + chance) / 2)
    return "undecided" if missed > ERROR_RATE else "no better"


def better_by_a_standard_error(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Return whether ``one`` answers more images ``[N]`` right, by more than one standard error of the difference.

    For a choice where ``other`` is the simpler one (the one-standard-error rule, as in ``callbacks.best``).
    """
    difference = one.astype(np.float64) - other
    return bool(difference.mean() > difference.std() / np.sqrt(max(1, difference.size)))
