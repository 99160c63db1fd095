"""Strategy, layer pairs and width from a teacher's features, before anything is trained.

The rules are in ``stages.analysis.rules``. They are put to the features as measured in each of WAYS
(``stages.analysis.drawn``), because energies and intensities follow massive activations, and no measure is known to be
the right one. The confidence of an answer is the share of bootstrap draws of the images for which the same table gives
the same answer, mean over the measures: it tells how much that depends on which images were read and on how energy is
measured, and nothing about whether the rule holds for this teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from vitcompress.core.analysis_records import Advice, Recommendation
from vitcompress.core.errors import UsageError
from vitcompress.stages.analysis.drawn import Drawn, drawn_by_way, intensities, leading
from vitcompress.stages.analysis.results import (
    ENERGY_SHARES,
    WAY_WORDS,
    NetworkResult,
    View,
    Way,
    high_percentile,
)
from vitcompress.stages.analysis.rules import Decision, Facts, Rule, What, decide
from vitcompress.stages.analysis.statistics import MIN_IMAGES
from vitcompress.stages.models.geometry import Shape

WEAK = 0.9
"""Confidence below which an answer is called weak."""
_AT_95 = ENERGY_SHARES.index(0.95)


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
    found = _findings(teacher, student, student_name, seed)
    decision, applied = decide(found.lead.facts)
    recommendations = tuple(_recommendation(teacher, found, decision, rule) for rule in applied.values())
    return Advice(
        strategy=decision.strategy,
        kind=decision.kind,
        pairs=decision.pairs,
        wide_heads=decision.wide_heads,
        images=teacher.taps[-1].images,
        recommendations=recommendations,
        summary=_summary(student_name, decision, recommendations),
    )


def _lacking(teacher: NetworkResult) -> str:
    """Why nothing can be said, or nothing."""
    last = teacher.taps[-1]
    fewest = min(last.images, last.kept)
    if fewest < MIN_IMAGES:
        return (
            f"{last.images} images were read, {last.kept} of them kept, and at least {MIN_IMAGES} of each are needed."
        )
    found = [*(tap.view(way).intensity for tap in teacher.taps for way in tap.ways), last.pca_spectrum]
    if not all(np.isfinite(values).all() for values in found):
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
class _Findings:
    """What every measure says, and the ones that are gone by."""

    by: Mapping[Way, Drawn]
    directions: Way
    """The measure that strategy and width follow."""
    intensity: Way
    """That layers follow."""
    lead: Drawn
    """Facts and draws by these two."""
    decided: Mapping[Way, Decision]
    """By each measure alone."""
    draws: Mapping[Way, Sequence[Decision]]
    """Likewise, of each draw."""

    def way(self, rule: Rule) -> Way:
        """The measure that a rule goes by."""
        return self.intensity if rule.what == "pairs" else self.directions


def _findings(teacher: NetworkResult, student: Shape, student_name: str, seed: int) -> _Findings:
    by = drawn_by_way(teacher, student, student_name, seed)
    decided = {way: decide(drawn.facts)[0] for way, drawn in by.items()}
    directions = leading({way: decision.words("strategy") for way, decision in decided.items()})
    intensity = leading({way: drawn.facts.strongest for way, drawn in by.items()})
    facts = replace(by[directions].facts, strongest=by[intensity].facts.strongest)
    lead = replace(by[directions], facts=facts, strongest=by[intensity].strongest)
    draws = {way: drawn.decisions() for way, drawn in by.items()}
    return _Findings(by, directions, intensity, lead, decided, draws)


def _recommendation(teacher: NetworkResult, found: _Findings, decision: Decision, rule: Rule) -> Recommendation:
    what, value, decisions = rule.what, decision.words(rule.what), found.lead.decisions()
    shares = [_agreeing(draws, what, value) for draws in found.draws.values()]
    confidence = sum(shares) / len(shares)
    answers = {WAY_WORDS[way]: alone.words(what) for way, alone in found.decided.items()}
    reason = rule.reason.format(**_words(teacher, found, decision))
    return Recommendation(
        what=what,
        value=value,
        rule=rule.name,
        reason=reason + _disputed(teacher, found, rule, value, answers, confidence),
        numbers=_numbers(teacher, found, decisions, rule),
        confidence=confidence,
        source=rule.source,
        measure=WAY_WORDS[found.way(rule)],
        sampling=_agreeing(decisions, what, value),
        answers=answers,
    )


def _agreeing(decisions: Sequence[Decision], what: What, value: str) -> float:
    """Share of the draws that give this answer."""
    return sum(other.words(what) == value for other in decisions) / len(decisions)


def _disputed(
    teacher: NetworkResult, found: _Findings, rule: Rule, value: str, answers: Mapping[str, str], confidence: float
) -> str:
    """Of a rule that rests on energies: whether the measures agree, and how sure the answer therefore is."""
    differing = {answer for answer in answers.values() if answer != value}
    if rule.basis == "shapes" and not differing:
        return ""
    dissent = [f"{_listed([way for way in answers if answers[way] == other])}: {other}" for other in sorted(differing)]
    sure = f", confidence {confidence:.2f}" if differing else ""
    agree = "disagree" if differing else "agree"
    if rule.what != "strategy":
        aside = f" ({'; '.join(dissent)})" if dissent else ""
        return f" The measures {agree}{aside}{sure}."
    needs = [f"{drawn.facts.shared:g} {WAY_WORDS[way]}" for way, drawn in found.by.items()]
    needs[0] = needs[0].replace(" ", " directions ", 1)
    channels = f"two channels hold {100 * teacher.taps[-1].strongest_channels(2)[1]:.0f} % of the energy"
    return (
        f" 95 % of the energy takes {', '.join(needs)}; student width {found.lead.facts.student.width}: the measures "
        f"{agree} ({'; '.join([*dissent, channels])}){sure}."
    )


def _listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _words(teacher: NetworkResult, found: _Findings, decision: Decision) -> dict[str, object]:
    """What the sentences of the rules are filled with."""
    facts, student, last = found.lead.facts, found.lead.facts.student, teacher.taps[-1]
    low, high = found.lead.shared_interval
    counted = len(last.view(found.directions).own)
    seen, strength = (WAY_WORDS[way] if way != "raw" else "" for way in (found.directions, found.intensity))
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
        "seen": seen and f", {seen}",
        "by": seen and f" ({seen})",
        "strength": strength and f" ({strength})",
        "percentile": f"99th percentile of {counted:,} images" if counted >= 100 else f"largest of {counted}",
        "layers": " ".join(map(str, facts.strongest)),
        "margin": _margin(teacher, facts, found.intensity),
        "width": decision.width,
    }


def _margin(teacher: NetworkResult, facts: Facts, way: Way) -> str:
    """By how much the strongest layers are stronger than the others."""
    rows = np.arange(teacher.taps[-1].images)[None]
    means = dict(zip((tap.layer for tap in teacher.taps), intensities(teacher, rows, way)[0].tolist(), strict=True))
    others = [layer for layer in means if layer not in facts.strongest]
    if not others:
        return ""
    least, following = min(facts.strongest, key=means.__getitem__), max(others, key=means.__getitem__)
    return f" (the least, layer {least}, {means[least]:.4g}; the next, layer {following}, {means[following]:.4g})"


def _numbers(teacher: NetworkResult, found: _Findings, decisions: Sequence[Decision], rule: Rule) -> dict[str, float]:
    facts, last = found.lead.facts, teacher.taps[-1]
    low, high = found.lead.shared_interval
    d95 = {"d95": facts.shared, "d95, low": low, "d95, high": high}
    if rule.what == "pairs":
        if rule.name != "highest intensity":
            return {}
        chosen = [float(np.mean((found.lead.strongest == tap.layer).any(axis=1))) for tap in teacher.taps]
        return {f"chosen, layer {layer}": share for layer, share in enumerate(chosen)}
    if rule.what == "width":
        widths = [decision.width for decision in decisions if decision.width is not None]
        ends = np.percentile(widths, [2.5, 97.5], method="nearest")
        return {**d95, "width, low": float(ends[0]), "width, high": float(ends[1])}
    view = last.view(found.directions)
    return {
        "student width": float(facts.student.width),
        "teacher width": float(last.width),
        **d95,
        "d95, 99th percentile": float(high_percentile(view.shared[:, _AT_95])),
        "directions of an image alone, 99th percentile": float(facts.own),
        "energy in the shared directions of the student's width": _held(view, facts.student.width),
        **{f"d95, {WAY_WORDS[way]}": drawn.facts.shared for way, drawn in found.by.items()},
        **{f"own, {WAY_WORDS[way]}": float(drawn.facts.own) for way, drawn in found.by.items()},
        "energy in the strongest channel": last.strongest_channels(1)[1],
        "energy in the two strongest channels": last.strongest_channels(2)[1],
    }


def _held(view: View, width: int) -> float:
    """Share of the tap's energy in the best subspace of this width that all images share."""
    return float(min(1.0, view.spectrum[:width].sum()))


def _summary(student: str, decision: Decision, recommendations: tuple[Recommendation, ...]) -> str:
    weak = [
        f"{entry.what} ({entry.value}: {_why_weak(entry)})"
        for entry in recommendations
        if entry.confidence is not None and entry.confidence < WEAK
    ]
    said = f"{decision.words('strategy')} for {student}; {decision.words('pairs')}"
    return said + (f"; weak: {', '.join(weak)}" if weak else "")


def _why_weak(entry: Recommendation) -> str:
    if len(set(entry.answers.values())) > 1:
        return f"confidence {entry.confidence:.2f}, the measures disagree"
    return f"only {entry.confidence:.0%} of the draws agree"
