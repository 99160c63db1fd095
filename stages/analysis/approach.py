"""Whether a student's curves over depth move towards its teacher's: the distillation dynamics in four numbers.

Source: [DD] Distillation Dynamics, arXiv 2511.06848, compares such curves by eye. The distance here is this project's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitcompress.stages.analysis.results import (
    ENERGY_SHARES,
    Floats,
    NetworkResult,
    TapResult,
    kept_rows,
    relative_depths,
)
from vitcompress.stages.analysis.statistics import MIN_IMAGES, Rows, drawn_times, intervals

Json = dict[str, Any]


@dataclass(frozen=True)
class _Quantity:
    name: str
    unit: str
    of_images: Callable[[TapResult], Floats]
    """Of a tap, ``[images]``; of its kept images ``[kept]``."""
    over_images: Callable[[Floats, Rows], Floats]
    """From ``[layers, images]``, NaN where not kept, and drawn images ``[B, images]`` to the curves ``[layers, B]``."""


def _medians(values: Floats, rows: Rows) -> Floats:
    return np.stack([np.median(of_tap[rows], axis=-1) for of_tap in values])


def _means(values: Floats, rows: Rows) -> Floats:
    times, known = drawn_times(rows), ~np.isnan(values)
    return np.asarray((np.where(known, values, 0) @ times.T) / (known.astype(np.float64) @ times.T))


def _log_means(values: Floats, rows: Rows) -> Floats:
    return np.asarray(np.log10(np.maximum(_means(values, rows), np.finfo(np.float64).tiny)))


_QUANTITIES = (
    _Quantity("rank95", "share of the width", lambda tap: tap.rank[:, ENERGY_SHARES.index(0.95)] / tap.width, _medians),
    _Quantity("entropy", "bits", lambda tap: tap.entropy, _means),
    _Quantity("log10 magnitude", "decades", lambda tap: tap.magnitude, _log_means),
    _Quantity("intensity", "mean |FFT| / D", lambda tap: tap.intensity, _means),
)


def approach(teacher: NetworkResult, students: Sequence[NetworkResult], *, seed: int = 0) -> tuple[Json, ...]:
    """Return the distance of the student from its teacher before, along and after training, for each quantity.

    A layer l of L stands at depth l / (L - 1), a single one, which is its network's last, at 1 (``relative_depths``).
    The teacher's curve is interpolated linearly at the student's depths. Images are drawn jointly for all taps of all
    networks; of a tap that kept some of them only (entropy), those count that are drawn and kept.

    ``students`` are the student untrained, at its checkpoints in order, and trained, read on the teacher's images.

    Returns:
        JSON objects for rank95 / D (median of the sample-wise rank), entropy, log10 of the magnitude and intensity:
        ``quantity``, ``unit``, ``images`` (which, in words), ``distances`` (``label``, ``epoch`` and ``distance`` of
        each student), ``change`` (distance after less distance before, in the same draws), ``verdict`` (``closer``,
        ``farther``, or ``no clear change`` where the interval of ``change`` holds 0) and ``sentence``. A distance, and
        the change, has ``value``, ``low`` and ``high``, the ends of the 95 % interval. With fewer than MIN_IMAGES
        images these ends and the verdict are None.
    """
    return tuple(_compare(quantity, teacher, students, seed) for quantity in _QUANTITIES)


def _compare(quantity: _Quantity, teacher: NetworkResult, students: Sequence[NetworkResult], seed: int) -> Json:
    known = [[quantity.of_images(tap) for tap in network.taps] for network in (teacher, *students)]
    images, counts = teacher.taps[0].images, [len(of_tap) for of_network in known for of_tap in of_network]
    fewest, most = min(counts), max(counts)
    kept = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    which = f"all {images:,} images" if fewest == images else f"{kept} kept of {images:,} images"
    values = [np.full((len(of_network), images), np.nan) for of_network in known]
    for placed, of_network in zip(values, known, strict=True):  # kept images at their places among all
        for row, of_tap in zip(placed, of_network, strict=True):
            row[kept_rows(images, len(of_tap))] = of_tap

    def statistic(rows: Rows) -> Floats:
        """Return of drawn images ``[B, images]`` each student's distance and the change, ``[students + 1, B]``."""
        curves = [quantity.over_images(of_network, rows) for of_network in values]
        distances = [distance(curves[0], curve) for curve in curves[1:]]
        before, after = distances[0], distances[-1]
        rounded = np.isclose(after, before, rtol=1e-9, atol=1e-12)  # which has a sign but is no change
        return np.stack([*distances, np.where(rounded, 0, after - before)])

    points = statistic(np.arange(images)[None])[:, 0].tolist()
    ends: list[tuple[float | None, float | None]] = [(None, None)] * len(points)
    verdict = None
    sentence = (
        f"{quantity.name}: {points[0]:.4g} from the teacher's curve before training and {points[-2]:.4g} after "
        f"({quantity.unit}; {which})"
    )
    if fewest < MIN_IMAGES:
        sentence += f": no verdict with fewer than {MIN_IMAGES} images."
    else:
        low, high = (found.tolist() for found in intervals(statistic, images, seed))
        ends = list(zip(low, high, strict=True))
        verdict = "closer" if high[-1] < 0 else "farther" if low[-1] > 0 else "no clear change"
        sentence += f", a change of {points[-1]:+.4g} [{low[-1]:+.4g}, {high[-1]:+.4g}]: {verdict}."
    *distances, change = [
        {"value": point, "low": low, "high": high} for point, (low, high) in zip(points, ends, strict=True)
    ]
    return {
        "quantity": quantity.name,
        "unit": quantity.unit,
        "images": which,
        "distances": [
            {"label": network.label, "epoch": network.epoch, "distance": found}
            for network, found in zip(students, distances, strict=True)
        ],
        "change": change,
        "verdict": verdict,
        "sentence": sentence,
    }


def distance(teacher: Floats, student: Floats) -> Floats:
    """Return the mean absolute difference of curves over relative depth: ``[Lt, ...]``, ``[Ls, ...]`` to ``[...]``."""
    at = np.interp(relative_depths(len(student)), relative_depths(len(teacher)), np.arange(len(teacher)))
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, len(teacher) - 1)
    share = (at - below).reshape(-1, *[1] * (teacher.ndim - 1))
    interpolated = (1 - share) * teacher[below] + share * teacher[above]
    return np.asarray(np.abs(interpolated - student).mean(axis=0))
