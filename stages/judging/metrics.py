"""What is measured of answers besides top-1, each with its interval and its loss against the teacher (torch-free).

Intervals are paired percentile bootstraps over the held-out images: every model is resampled in the same way, by counts
that say how often each image is drawn (Efron & Tibshirani 1993, chapter 13). Shapes: N images, K classes or channels of
an embedding, R resamplings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.measured_records import MetricRow
from vitcompress.core.records import Task
from vitcompress.stages.judging.accuracy import share_interval
from vitcompress.stages.judging.answers import Answers, HeldOut
from vitcompress.stages.judging.contestant import TEACHER, Contestant

RESAMPLINGS = 1000
_SEED = 0
_AT_ONCE = 1 << 20
"""Counts that are worked on together: what is computed of them stays in the processor's cache."""
Values = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""From counts ``[R, N]`` to percent ``[R]``."""


@dataclass(frozen=True)
class Answered:
    """What one model gave, and what it should have."""

    answers: Answers
    outputs: NDArray[np.float32] | None
    """``[N, K]``; None for a classification, whose logits are not kept."""
    targets: NDArray[Any]
    """Class numbers int64 ``[N]``, or of several labels float32 ``[N, K]``."""
    classes: int
    teacher: Answered | None = None
    """The teacher in torch; None of itself."""
    in_torch: NDArray[np.float32] | None = None
    """Outputs of the same network in torch, where they are kept."""


@dataclass(frozen=True)
class Metric:
    """One number in percent, the more the better."""

    name: str
    """Part of its gates' names: ``min_NAME`` and ``max_NAME_drop``."""
    label: str
    """What a reader calls it."""
    tasks: tuple[Task, ...]
    of: Callable[[Answered], Values | NDArray[np.bool_] | None]
    """Prepares the values of resampled images, or says which images ``[N]`` it is the share of (its interval is the
    score interval, Wilson 1927, then); None where these images have no such number."""
    ends: Callable[[Answered], tuple[float, float]] | None = None
    """The 95 % interval of the value in percent, where resampling does not give it."""
    drops: bool = True
    """Whether the teacher has it too, so that some of it can be lost."""
    shifted: bool = False
    """Whether images that are drawn twice raise it, so that its interval is turned about it (``interval_fields``)."""


def mean_of(scores: NDArray[Any], weights: NDArray[Any] | None = None) -> Values:
    """Return the metric that is 100 times the (weighted) mean of ``scores [N]`` over images."""
    weight = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64)

    def values(counts: NDArray[np.float32]) -> NDArray[np.float64]:
        drawn = counts @ weight
        with np.errstate(invalid="ignore"):
            found: NDArray[np.float64] = 100 * (counts @ (weight * scores)) / drawn
        return found

    return values


def resampled(count: int) -> NDArray[np.float32]:
    """Return how often each of ``count`` images is drawn: ``[1 + R, N]``, the images as they are first."""
    generator, found = np.random.default_rng(_SEED), np.ones((1 + RESAMPLINGS, count), np.float32)
    for row in found[1:]:
        row[:] = np.bincount(generator.integers(count, size=count), minlength=count)
    return found


def metric_rows(
    models: Sequence[Contestant], held_out: HeldOut, classes: int, metrics: Sequence[Metric]
) -> tuple[MetricRow, ...]:
    """Return a row for each model and metric, in their order; the teacher in torch is among the models."""
    count = len(held_out.labels)
    outputs = held_out.outputs or (None,) * len(models)
    given = [
        None if answers is None else Answered(answers, own, held_out.labels, classes)
        for answers, own in zip(held_out.answers, outputs, strict=True)
    ]
    teacher_at = next(at for at, one in enumerate(models) if (one.model, one.runtime) == (TEACHER, "torch"))
    teacher = given[teacher_at]
    in_torch = {one.model: own for one, own in zip(models, outputs, strict=True) if one.runtime == "torch"}
    parts, rows = parts_of(count) if metrics else [], []
    for metric in metrics:
        at_teacher: NDArray[np.float64] | None = None
        for at in sorted(range(len(models)), key=lambda place: place != teacher_at):
            each, answered = models[at], given[at]
            row: dict[str, Any] = {**each.names, "metric": metric.name, "label": metric.label}
            if answered is None:
                rows.append((at, MetricRow(**row, reason=each.reason)))
                continue
            own = answered if at == teacher_at else replace(answered, teacher=teacher)
            values = metric.of(replace(own, in_torch=in_torch.get(each.model)))
            if values is None:
                continue
            if isinstance(values, np.ndarray):
                row |= dict(zip(("value", "value_low", "value_high"), share_interval(values), strict=True))
                rows.append((at, MetricRow(**row)))
                continue
            found = np.concatenate([values(part) for part in parts])
            row |= interval_fields("value", found, metric.shifted)
            if metric.ends is not None:
                row |= dict(zip(("value_low", "value_high"), metric.ends(own), strict=True))
            if at == teacher_at:
                at_teacher = found
            elif at_teacher is not None:
                row |= interval_fields("drop", at_teacher - found)
            rows.append((at, MetricRow(**row)))
    order = {metric.name: place for place, metric in enumerate(metrics)}
    return tuple(row for _, row in sorted(rows, key=lambda one: (order[one[1].metric], one[0])))


def parts_of(count: int) -> list[NDArray[np.float32]]:
    """Return the counts of ``resampled`` in parts that are worked on one after another."""
    counts = resampled(count)
    return np.array_split(counts, max(1, counts.size // _AT_ONCE))


def interval_fields(name: str, found: NDArray[np.float64], shifted: bool = False) -> dict[str, Any]:
    """Return the value of the images as they are, and the ends of the 95 % interval of the resampled ones: percentiles
    or, where these are ``shifted``, the basic interval of the log-odds (Davison & Hinkley 1997, section 5.2).
    """
    value, resampled = float(found[0]), found[1:][np.isfinite(found[1:])]
    if not np.isfinite(value) or not len(resampled):
        return {}
    low, high = np.percentile(resampled, [2.5, 97.5])
    if shifted:
        own, *ends = (np.log((each + 1e-3) / (100.001 - each)) for each in (value, high, low))  # also of 0 and 100
        low, high = (100.002 / (1 + np.exp(end - 2 * own)) - 1e-3 for end in ends)
    return {name: value, f"{name}_low": min(value, float(low)), f"{name}_high": max(value, float(high))}
