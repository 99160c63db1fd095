"""Strategy, layer pairs and width from a teacher's features, before anything is trained.

The rules are in ``stages.analysis.rules``. The confidence of an answer is the share of bootstrap draws of the images
for which the same table gives the same answer: it tells how much that depends on which images were read, and nothing
about whether the rule holds for this teacher.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from core.analysis_records import Advice, Recommendation
from core.errors import UsageError
from stages.analysis.results import (
    ENERGY_SHARES,
    Counts,
    Floats,
    NetworkResult,
    TapResult,
    high_percentile,
    kept_rows,
)
from stages.analysis.rules import Decision, Facts, Rule, What, compared_layers, decide
from stages.analysis.statistics import MIN_IMAGES, Rows, resampled_rows
from stages.models.geometry import Shape

WEAK = 0.9
"""Confidence below which an answer is called weak."""
_AT_95, _AT_99 = ENERGY_SHARES.index(0.95), ENERGY_SHARES.index(0.99)


def advise(teacher: NetworkResult, student: Shape, student_name: str, *, seed: int = 0) -> Advice:
    """What to train the student by, with reasons and confidence.

    Args:
        teacher: every tap of it. Which images its last tap kept follows from their number (``kept_rows``).
        student: the unchanged student's shape.
        student_name: for the words.
        seed: of the bootstrap; the same seed gives the same record.

    Returns:
        the advice; one that recommends nothing, and says why, with fewer than ``MIN_IMAGES`` images or features that
        have no energy or are not finite.

    Raises:
        UsageError: some layers of the teacher are not there.
    """
    layers = [tap.layer for tap in teacher.taps]
    if not layers or layers != list(range(len(layers))):
        raise UsageError(
            f"advice needs every layer of {teacher.arch}, from 0 to its last, and was given layers {layers}; "
            "read them all."
        )
    lacking = _lacking(teacher)
    if lacking:
        return _nothing(teacher, lacking)
    drawn = _drawn(teacher, student, student_name, seed)
    decision, applied = decide(drawn.facts)
    decisions = [decide(facts)[0] for facts in drawn.draws()]
    recommendations = tuple(
        Recommendation(
            what=what,
            value=decision.words(what),
            rule=rule.name,
            reason=rule.reason.format(**_words(teacher, drawn, decision)),
            numbers=_numbers(teacher, drawn, decisions, rule),
            confidence=sum(other.words(what) == decision.words(what) for other in decisions) / len(decisions),
            source=rule.source,
        )
        for what, rule in applied.items()
    )
    return Advice(
        strategy=decision.strategy,
        kind=decision.kind,
        pairs=decision.pairs,
        wide_heads=decision.wide_heads,
        images=teacher.taps[-1].images,
        recommendations=recommendations,
        summary=_summary(student_name, decision, recommendations),
    )


def selected_layers(teacher: NetworkResult, student: Shape) -> tuple[int, ...]:
    """The teacher's layers of highest mean intensity, ascending, as many as a student of this depth is compared on."""
    means = np.array([tap.intensity.mean() for tap in teacher.taps])
    count = compared_layers(student.depth, len(means))
    return tuple(sorted(int(layer) for layer in np.argsort(-means, kind="stable")[:count]))


def _lacking(teacher: NetworkResult) -> str:
    """Why nothing can be said, or nothing."""
    last = teacher.taps[-1]
    fewest = min(last.images, last.kept)
    if fewest < MIN_IMAGES:
        return (
            f"{last.images} images were read, {last.kept} of them kept, and at least {MIN_IMAGES} of each are needed."
        )
    intensities = np.stack([tap.intensity for tap in teacher.taps])
    if not np.isfinite(intensities).all() or not np.isfinite(last.pca_spectrum).all():
        return f"features of {teacher.arch} are not finite."
    if not last.pca_spectrum.any():
        return f"the last tap of {teacher.arch} is zero for all {last.images} images."
    return ""


def _nothing(teacher: NetworkResult, why: str) -> Advice:
    last = teacher.taps[-1]
    numbers = {"images": float(last.images), "images kept": float(last.kept)}
    recommendations = tuple(
        Recommendation(
            what=what,
            value=None,
            rule="nothing to go by",
            reason=why,
            numbers=numbers,
            confidence=None,
            source="this project: stages.analysis.statistics.MIN_IMAGES",
        )
        for what in get_args(What)
    )
    return Advice(
        strategy=None,
        kind=None,
        pairs=(),
        wide_heads=None,
        images=last.images,
        recommendations=recommendations,
        summary=f"nothing is recommended: {why}",
    )


@dataclass(frozen=True)
class _Drawn:
    """The facts, and their statistics over B draws of the images."""

    facts: Facts
    shared: Floats
    """[B]"""
    own: Counts
    """[B]"""
    strongest: Counts
    """[B, k]"""

    @property
    def shared_interval(self) -> tuple[float, float]:
        """95 % percentile interval of d95."""
        low, high = np.percentile(self.shared, [2.5, 97.5])
        return float(low), float(high)

    def draws(self) -> Iterator[Facts]:
        """The facts of each draw."""
        for shared, own, strongest in zip(self.shared, self.own, self.strongest, strict=True):
            yield replace(self.facts, shared=float(shared), own=int(own), strongest=tuple(strongest.tolist()))


def _drawn(teacher: NetworkResult, student: Shape, student_name: str, seed: int) -> _Drawn:
    last, depth = teacher.taps[-1], len(teacher.taps)
    count = compared_layers(student.depth, depth)
    blocks = [_statistics(teacher, rows, count) for rows in resampled_rows(last.images, last.kept, seed)]
    shared, own, strongest = _statistics(teacher, np.arange(last.images)[None], count)
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
    return _Drawn(facts, *(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def _statistics(teacher: NetworkResult, rows: Rows, count: int) -> tuple[Floats, Counts, Counts]:
    """Of drawn images ``rows [B, images]``: d95 ``[B]``, own directions ``[B]``, strongest layers ``[B, count]``."""
    last = teacher.taps[-1]
    kept = kept_rows(last.images, last.kept)
    order = np.concatenate([kept, np.setdiff1d(np.arange(last.images), kept)])  # kept images first, as in rows
    shared = np.median(last.pca_rank[:, _AT_95][rows[:, : last.kept]], axis=1)
    own = high_percentile(last.rank[order, _AT_99][rows])
    intensity = np.stack([tap.intensity[order][rows].mean(axis=1) for tap in teacher.taps], axis=1)
    strongest = np.sort(np.argsort(-intensity, axis=1, kind="stable")[:, :count], axis=1)  # of equal ones the earlier
    return shared, own, strongest


def _words(teacher: NetworkResult, drawn: _Drawn, decision: Decision) -> dict[str, object]:
    """What the sentences of the rules are filled with."""
    facts, student, last = drawn.facts, drawn.facts.student, teacher.taps[-1]
    low, high = drawn.shared_interval
    return {
        "student": facts.student_name,
        "student_width": student.width,
        "student_depth": student.depth,
        "student_last": student.depth - 1,
        "student_taps": f"{student.depth} {'blocks' if student.isotropic else 'stages'}",
        "heads": student.heads,
        "head_size": facts.head_size,
        "teacher_width": facts.teacher_width,
        "teacher_depth": facts.teacher_depth,
        "teacher_last": facts.teacher_depth - 1,
        "teacher_taps": f"{facts.teacher_depth} {'blocks' if facts.teacher_isotropic else 'stages'}",
        "shared": facts.shared,
        "low": low,
        "high": high,
        "own": facts.own,
        "kept": last.kept,
        "percentile": f"99th percentile of {last.images:,} images"
        if last.images >= 100
        else f"largest of {last.images}",
        "layers": " ".join(map(str, facts.strongest)),
        "margin": _margin(teacher, facts),
        "width": decision.width,
    }


def _margin(teacher: NetworkResult, facts: Facts) -> str:
    """By how much the strongest layers are stronger than the others."""
    means = {tap.layer: float(tap.intensity.mean()) for tap in teacher.taps}
    others = [layer for layer in means if layer not in facts.strongest]
    if not others:
        return ""
    least, following = min(facts.strongest, key=means.__getitem__), max(others, key=means.__getitem__)
    return f" (the least, layer {least}, {means[least]:.4g}; the next, layer {following}, {means[following]:.4g})"


def _numbers(teacher: NetworkResult, drawn: _Drawn, decisions: list[Decision], rule: Rule) -> dict[str, float]:
    facts, last = drawn.facts, teacher.taps[-1]
    low, high = drawn.shared_interval
    d95 = {"d95": facts.shared, "d95, low": low, "d95, high": high}
    if rule.what == "pairs":
        if rule.name != "highest intensity":
            return {}
        chosen = [float(np.mean((drawn.strongest == tap.layer).any(axis=1))) for tap in teacher.taps]
        return {f"chosen, layer {layer}": share for layer, share in enumerate(chosen)}
    if rule.what == "width":
        widths = [decision.width for decision in decisions if decision.width is not None]
        ends = np.percentile(widths, [2.5, 97.5], method="nearest")
        return {**d95, "width, low": float(ends[0]), "width, high": float(ends[1])}
    return {
        "student width": float(facts.student.width),
        "teacher width": float(last.width),
        **d95,
        "d95, 99th percentile": float(high_percentile(last.pca_rank[:, _AT_95])),
        "directions of an image alone, 99th percentile": float(facts.own),
        "energy in the shared directions of the student's width": _held(last, facts.student.width),
    }


def _held(tap: TapResult, width: int) -> float:
    """Share of the tap's energy in the best subspace of this width that all images share."""
    return float(min(1.0, tap.pca_spectrum[:width].sum()))


def _summary(student: str, decision: Decision, recommendations: tuple[Recommendation, ...]) -> str:
    weak = [
        f"{recommendation.what} ({recommendation.value}: only {recommendation.confidence:.0%} of the draws agree)"
        for recommendation in recommendations
        if recommendation.confidence is not None and recommendation.confidence < WEAK
    ]
    said = f"{decision.words('strategy')} for {student}; {decision.words('pairs')}"
    return said + (f"; weak: {', '.join(weak)}" if weak else "")
