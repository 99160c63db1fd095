"""Intervals and answers as docs/evidence/plan.md defines them: over seeds, over images, corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Verdict = Literal["for", "against", "not decided"]
ENOUGH = 0.5
"""Points that a difference must have to count."""
LEVEL = 0.05
RESAMPLES = 9_999
Results = Mapping[int, NDArray[np.bool_]]
"""Of each seed, which images of *test* the student got right, ``[N]``."""


@dataclass(frozen=True)
class Difference:
    """A sum of arms with factors, in points, by seeds and by images."""

    by_seed: NDArray[np.float64]
    """``[S]``."""
    by_image: NDArray[np.float64]
    """``[N]``: the mean over the seeds, in points."""
    resampled: NDArray[np.float64]
    """Sorted means of images drawn with replacement."""

    @property
    def mean(self) -> float:
        """The estimate, points."""
        return float(self.by_seed.mean())

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The wider of Student's t over the seeds and the percentiles over the images, at 1 - ``level``."""
        seeds = _t(self.by_seed).confidence_interval(1 - level)
        images = np.quantile(self.resampled, (level / 2, 1 - level / 2))
        wider = max(((seeds.low, seeds.high), tuple(images)), key=lambda found: found[1] - found[0])
        return float(wider[0]), float(wider[1])

    def text(self, level: float = LEVEL) -> str:
        """The estimate and its interval: ``+1.20 [+0.40, +2.00]``."""
        low, high = self.interval(level)
        return f"{self.mean:+.2f} [{low:+.2f}, {high:+.2f}]"

    def above(self, points: float) -> float:
        """Two-sided p-value of its being above ``points``: the larger of the two ways."""
        images = (1 + np.sum(self.resampled <= points)) / (1 + len(self.resampled))
        return float(min(1.0, 2 * max(_t(self.by_seed, points, "greater").pvalue, images)))

    def below(self, points: float) -> float:
        """The same of its being below."""
        images = (1 + np.sum(self.resampled >= points)) / (1 + len(self.resampled))
        return float(min(1.0, 2 * max(_t(self.by_seed, points, "less").pvalue, images)))


def _t(values: NDArray[np.float64], points: float = 0.0, side: str = "two-sided") -> Any:
    return stats.ttest_1samp(values, points, alternative=side)


def difference(contrast: Mapping[str, int], results: Mapping[str, Results]) -> Difference:
    """The difference over the seeds that all its arms have.

    Raises:
        ValueError: fewer than two such seeds.
    """
    seeds = sorted(set.intersection(*(set(results.get(arm, {})) for arm in contrast)))
    if len(seeds) < 2:
        raise ValueError(f"at least two seeds of each arm are needed; {', '.join(contrast)} share {seeds}")
    rows = np.array([[100.0 * factor * results[arm][seed] for seed in seeds] for arm, factor in contrast.items()])
    by_seed_and_image = rows.sum(axis=0)
    by_image = by_seed_and_image.mean(axis=0)
    drawn = stats.bootstrap(
        (by_image,), np.mean, n_resamples=RESAMPLES, batch=200, method="percentile", rng=np.random.default_rng(0)
    ).bootstrap_distribution
    return Difference(by_seed_and_image.mean(axis=1), by_image, np.sort(drawn))


@dataclass(frozen=True)
class Answer:
    """What the differences of one question say."""

    verdict: Verdict
    level: float
    """At which its intervals hold, by Holm."""
    p: float
    """Corrected."""


def answers(questions: Sequence[tuple[Sequence[Difference], bool]], family: int) -> list[Answer]:
    """The answers to questions that are decided together (Holm 1979).

    A question is *for* only where all its differences are, so it has the largest of their p-values; it is *against*
    where one of them is, so it has the smallest, times their number. No difference can be at most 0 and at least
    ``ENOUGH``, so of a question's two hypotheses one at most is true, and ``family`` counts questions (Shaffer 1986).

    Args:
        questions: the differences of each, and whether *for* and *against* are swapped.
        family: how many questions there are, answered or not.
    """
    p_for = [max(one.above(0.0) for one in every) for every, _ in questions]
    p_against = [min(1.0, len(every) * min(one.below(ENOUGH) for one in every)) for every, _ in questions]
    smaller = [min(pair) for pair in zip(p_for, p_against, strict=True)]
    found: dict[int, Answer] = {}
    before = 0.0
    for rank, at in enumerate(np.argsort(smaller, kind="stable").tolist()):
        every, swapped = questions[at]
        before = min(1.0, max(before, smaller[at] * (family - rank)))
        sides: tuple[Verdict, Verdict] = ("against", "for") if swapped else ("for", "against")
        verdict: Verdict = "not decided"
        if before < LEVEL and p_against[at] <= p_for[at]:
            verdict = sides[1]
        elif before < LEVEL and all(one.mean >= ENOUGH for one in every):
            verdict = sides[0]
        found[at] = Answer(verdict, LEVEL / (family - rank), before)
    return [found[at] for at in range(len(questions))]
