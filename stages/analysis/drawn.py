"""What the rules decide by, in each way that a teacher was measured in, and over bootstrap draws of its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from vitcompress.stages.analysis.results import (
    ENERGY_SHARES,
    WAYS,
    Counts,
    Floats,
    NetworkResult,
    Way,
    high_percentile,
    kept_rows,
)
from vitcompress.stages.analysis.rules import Decision, Facts, compared_layers, decide
from vitcompress.stages.analysis.statistics import Rows, drawn_times, resampled_rows
from vitcompress.stages.models.geometry import Shape

_AT_95, _AT_99 = ENERGY_SHARES.index(0.95), ENERGY_SHARES.index(0.99)


@dataclass(frozen=True)
class Drawn:
    """The facts as one measure has them, and over B draws of the images ``[B]`` (k strongest layers: ``[B, k]``)."""

    facts: Facts
    shared: Floats
    own: Counts
    strongest: Counts

    def decisions(self) -> list[Decision]:
        """Return what the table of rules decides for each draw."""
        draws = zip(self.shared.tolist(), self.own.tolist(), map(tuple, self.strongest.tolist()), strict=True)
        return [
            decide(replace(self.facts, shared=shared, own=own, strongest=strongest))[0]
            for shared, own, strongest in draws
        ]


def drawn_by_way(teacher: NetworkResult, student: Shape, student_name: str, seed: int) -> dict[Way, Drawn]:
    """Return facts and draws by each way in which the last tap was measured and has energy, raw first.

    The draws of images are the same for all of them.
    """
    last, depth = teacher.taps[-1], len(teacher.taps)
    count = compared_layers(student.depth, depth)
    blocks = list(resampled_rows(last.images, last.kept, seed))
    found = {}
    for way in last.ways:
        if way != "raw" and not last.view(way).spectrum.any():
            continue
        shared, own, strongest = statistics(teacher, np.arange(last.images)[None], count, way)
        facts = Facts(
            student=student,
            student_name=student_name,
            teacher_width=last.width,
            teacher_depth=depth,
            teacher_isotropic=not last.name.startswith("stage"),
            shared=float(shared[0]),
            own=int(own[0]),
            strongest=tuple(strongest[0].tolist()),
        )
        parts = zip(*(statistics(teacher, rows, count, way) for rows in blocks), strict=True)
        found[way] = Drawn(facts, *(np.concatenate(part) for part in parts))
    return found


def statistics(teacher: NetworkResult, rows: Rows, count: int, way: Way) -> tuple[Floats, Counts, Counts]:
    """Return of drawn images ``[B, images]`` d95 ``[B]``, own directions ``[B]``, strongest layers ``[B, count]``.

    In other ways than raw all of them are of the kept images.
    """
    last = teacher.taps[-1]
    view, kept = last.view(way), rows[:, : last.kept]
    shared = np.median(view.shared[:, _AT_95][kept], axis=1)
    own = view.own[:, _AT_99]
    drawn = own[_kept_first(last.images, last.kept)][rows] if way == "raw" else own[kept]
    # Of equal layers the earlier.
    strongest = np.argsort(-intensities(teacher, rows, way), axis=1, kind="stable")[:, :count]
    return shared, high_percentile(drawn), np.sort(strongest, axis=1)


def intensities(teacher: NetworkResult, rows: Rows, way: Way) -> Floats:
    """Return ``[B, taps]``: mean intensity of each layer over drawn images ``[B, images]``; raw where one lacks it."""
    last = teacher.taps[-1]
    order = _kept_first(last.images, last.kept)
    if way == "raw" or any(way not in tap.ways or not len(tap.viewed_rows) for tap in teacher.taps):
        return np.stack([tap.intensity[order][rows].mean(axis=1) for tap in teacher.taps], axis=1)
    place = np.argsort(order)  # of an image, in rows
    times = drawn_times(rows)
    means = []
    for tap in teacher.taps:
        drawn = times[:, place[tap.viewed_rows]]
        drawn[~drawn.any(axis=1)] = 1.0  # none of the images looked at was drawn: all stand for the draw
        means.append(drawn @ tap.view(way).intensity / drawn.sum(axis=1))
    return np.stack(means, axis=1)


def _kept_first(images: int, kept: int) -> Counts:
    """Return the numbers of the images in the order that rows have them: the last tap's kept ones first."""
    first = kept_rows(images, kept)
    return np.concatenate([first, np.setdiff1d(np.arange(images), first)])


def leading(answers: Mapping[Way, object]) -> Way:
    """Return the measure to follow: raw, unless more of the measures give another answer; then the first of those.

    Raw leads, because it is what the losses compare and what the rules were published for (docs/adr/0006).
    """
    votes = Counter(answers.values())
    most = max(votes.values())
    return next(way for way in WAYS if way in answers and votes[answers[way]] == most)
