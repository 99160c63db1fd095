"""Whether a student's curves over depth move towards its teacher's: the distillation dynamics in four numbers.

Source: [DD] Distillation Dynamics, arXiv 2511.06848, compares such curves by eye. The distance here is this project's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

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

Verdict = Literal["closer", "farther", "no clear change"]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % percentile bootstrap interval over images."""

    value: float
    low: float | None
    """None, like ``high``, with fewer than MIN_IMAGES images."""
    high: float | None


@dataclass(frozen=True)
class Distance:
    """How far one student's curve is from the teacher's: mean absolute difference over the student's layers."""

    label: str
    epoch: int | None
    distance: Estimate


@dataclass(frozen=True)
class Approach:
    """One quantity. ``dataclasses.asdict`` gives JSON values."""

    quantity: str
    unit: str
    images: str
    """Which images, in words."""
    distances: tuple[Distance, ...]
    """Before, checkpoints, after; empty when they cannot be compared."""
    change: Estimate | None
    """Distance after less distance before, in the same draws; None when they cannot be compared."""
    verdict: Verdict | None
    """``no clear change`` when the interval of ``change`` holds 0; None without that interval."""
    sentence: str


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
    return np.asarray(np.log10(_means(values, rows)))


_QUANTITIES = (
    _Quantity("rank95", "share of the width", lambda tap: tap.rank[:, ENERGY_SHARES.index(0.95)] / tap.width, _medians),
    _Quantity("entropy", "bits", lambda tap: tap.entropy, _means),
    _Quantity("log10 magnitude", "decades", lambda tap: tap.magnitude, _log_means),
    _Quantity("intensity", "mean |FFT| / D", lambda tap: tap.intensity, _means),
)


def approach(
    teacher: NetworkResult,
    before: NetworkResult,
    checkpoints: Sequence[NetworkResult],
    after: NetworkResult,
    *,
    seed: int = 0,
) -> tuple[Approach, ...]:
    """Return the distance of the student from its teacher before, along and after training, for each quantity.

    A layer l of L stands at depth l / (L - 1), a single one, which is its network's last, at 1 (``relative_depths``).
    The teacher's curve is interpolated linearly at the student's depths. Images are drawn jointly for all taps of all
    networks; of a tap that kept some of them only (entropy), those count that are drawn and kept.

    Args:
        teacher: every tap of it.
        before: the student untrained.
        checkpoints: the student while it is trained, in order.
        after: the student trained.
        seed: of the bootstrap.

    Returns:
        rank95 / D (median of the sample-wise rank), entropy, log10 of the magnitude and intensity. All networks must
        have been read on the same images in the same order; if their numbers differ, or a quantity is not finite, it
        has no distances and a sentence that says so.
    """
    return tuple(_compare(quantity, teacher, (before, *checkpoints, after), seed) for quantity in _QUANTITIES)


def _compare(quantity: _Quantity, teacher: NetworkResult, students: Sequence[NetworkResult], seed: int) -> Approach:
    networks = (teacher, *students)
    known = [[quantity.of_images(tap) for tap in network.taps] for network in networks]
    images, counts = teacher.taps[0].images, [len(of_tap) for of_network in known for of_tap in of_network]
    fewest, most = min(counts), max(counts)
    kept = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    which = f"all {images:,} images" if fewest == images else f"{kept} kept of {images:,} images"
    reason = _incomparable(quantity, networks, known)
    if reason:
        sentence = f"{quantity.name}: not compared, {reason}."
        return Approach(quantity.name, quantity.unit, which, (), None, None, sentence)
    values = [np.stack([_placed(of_tap, images) for of_tap in of_network]) for of_network in known]

    def statistic(rows: Rows) -> Floats:
        """Return of drawn images ``[B, images]`` each student's distance and the change, ``[students + 1, B]``."""
        curves = [quantity.over_images(of_network, rows) for of_network in values]
        distances = [distance(curves[0], curve) for curve in curves[1:]]
        return np.stack([*distances, _change(distances[0], distances[-1])])

    points = statistic(np.arange(images)[None])[:, 0].tolist()
    if fewest < MIN_IMAGES:
        estimates = [Estimate(point, None, None) for point in points]
    else:
        low, high = intervals(statistic, images, seed)
        estimates = list(map(Estimate, points, low.tolist(), high.tolist()))
    change, verdict = estimates[-1], _verdict(estimates[-1])
    distances = tuple(
        Distance(network.label, network.epoch, estimate)
        for network, estimate in zip(students, estimates[:-1], strict=True)
    )
    sentence = (
        f"{quantity.name}: {points[0]:.4g} from the teacher's curve before training and {points[-2]:.4g} after "
        f"({quantity.unit}; {which})"
    )
    if verdict is None:
        sentence += f": no verdict with fewer than {MIN_IMAGES} images."
    else:
        sentence += f", a change of {change.value:+.4g} [{change.low:+.4g}, {change.high:+.4g}]: {verdict}."
    return Approach(quantity.name, quantity.unit, which, distances, change, verdict, sentence)


def distance(teacher: Floats, student: Floats) -> Floats:
    """Return the mean absolute difference of curves over relative depth: ``[Lt, ...]``, ``[Ls, ...]`` to ``[...]``."""
    at = np.interp(relative_depths(len(student)), relative_depths(len(teacher)), np.arange(len(teacher)))
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, len(teacher) - 1)
    share = (at - below).reshape(-1, *[1] * (teacher.ndim - 1))
    interpolated = (1 - share) * teacher[below] + share * teacher[above]
    return np.asarray(np.abs(interpolated - student).mean(axis=0))


def _change(before: Floats, after: Floats) -> Floats:
    """Return the difference of distances; 0 for rounding, which has a sign but is no change."""
    return np.where(np.isclose(after, before, rtol=1e-9, atol=1e-12), 0, after - before)


def _placed(known: Floats, images: int) -> Floats:
    """Return what is known of kept images, at their places among all; NaN elsewhere."""
    placed = np.full(images, np.nan)
    placed[kept_rows(images, len(known))] = known
    return placed


def _incomparable(quantity: _Quantity, networks: Sequence[NetworkResult], known: list[list[Floats]]) -> str:
    """Return why there is no distance, or nothing."""
    images = networks[0].taps[0].images
    for network, of_network in zip(networks, known, strict=True):
        for tap, of_tap in zip(network.taps, of_network, strict=True):
            if tap.images != images:
                return f"{network.label} was read on {tap.images:,} images and {networks[0].label} on {images:,}"
            if not len(of_tap):
                return f"{tap.name} of {network.label} kept no images"
            if not np.isfinite(of_tap).all():
                return f"{tap.name} of {network.label} is not finite"
            if quantity.over_images is _log_means and not (of_tap > 0).all():
                return f"{tap.name} of {network.label} is zero for some image"
    return ""


def _verdict(change: Estimate) -> Verdict | None:
    if change.low is None or change.high is None:
        return None
    return "closer" if change.high < 0 else "farther" if change.low > 0 else "no clear change"
