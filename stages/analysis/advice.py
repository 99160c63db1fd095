"""Strategy, layer pairs and width from a teacher's features, before anything is trained.

The rules are in ``stages.analysis.rules``. They are applied to the features as measured in each of WAYS
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
from vitcompress.stages.analysis.results import ENERGY_SHARES, WAY_WORDS, NetworkResult, Way, high_percentile
from vitcompress.stages.analysis.rules import Decision, Facts, Rule, What, decide
from vitcompress.stages.analysis.statistics import MIN_IMAGES
from vitcompress.stages.models.geometry import Shape

WEAK = 0.9
"""Confidence below which an answer is called weak."""


def advise(teacher: NetworkResult, student: Shape, student_name: str, *, seed: int = 0) -> Advice:
    """Return what to train the student by, with reasons and confidence.

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
    images = teacher.taps[-1].images
    lacking = _lacking(teacher)
    if lacking:
        decision = Decision()
        recommendations = tuple(_nothing(what, teacher, lacking) for what in get_args(What))
        summary = f"nothing is recommended: {lacking}"
    else:
        by = drawn_by_way(teacher, student, student_name, seed)
        directions = leading({way: decide(drawn.facts)[0].words("strategy") for way, drawn in by.items()})
        intensity = leading({way: drawn.facts.strongest for way, drawn in by.items()})
        facts = replace(by[directions].facts, strongest=by[intensity].facts.strongest)
        lead = replace(by[directions], facts=facts, strongest=by[intensity].strongest)
        decision, applied = decide(facts)
        draws = {way: drawn.decisions() for way, drawn in by.items()}
        found = _Findings(teacher, by, draws, directions, intensity, lead, lead.decisions(), decision)
        recommendations = tuple(found.recommendation(rule) for rule in applied.values())
        summary = _summary(student_name, decision, recommendations)
    return Advice(
        strategy=decision.strategy,
        kind=decision.kind,
        pairs=decision.pairs,
        wide_heads=decision.wide_heads,
        images=images,
        recommendations=recommendations,
        summary=summary,
    )


def _lacking(teacher: NetworkResult) -> str:
    """Return why nothing can be advised, or nothing."""
    last = teacher.taps[-1]
    if min(last.images, last.kept) < MIN_IMAGES:
        return (
            f"{last.images} images were read, {last.kept} of them kept, and at least {MIN_IMAGES} of each are needed."
        )
    found = [*(tap.view(way).intensity for tap in teacher.taps for way in tap.ways), last.pca_spectrum]
    if not all(np.isfinite(values).all() for values in found):
        return f"features of {teacher.arch} are not finite."
    if not last.pca_spectrum.any():
        return f"the last tap of {teacher.arch} is zero for all {last.images} images."
    return ""


def _nothing(what: What, teacher: NetworkResult, why: str) -> Recommendation:
    last = teacher.taps[-1]
    return Recommendation(
        what=what,
        value=None,
        rule="nothing to go by",
        reason=why,
        numbers={"images": float(last.images), "images kept": float(last.kept)},
        confidence=None,
        source="this project: stages.analysis.statistics.MIN_IMAGES",
    )


@dataclass(frozen=True)
class _Findings:
    """What every measure says, and what is decided."""

    teacher: NetworkResult
    by: Mapping[Way, Drawn]
    draws: Mapping[Way, Sequence[Decision]]
    """By each measure alone, of each draw."""
    directions: Way
    """The measure that strategy and width follow."""
    intensity: Way
    """The measure that layers follow."""
    lead: Drawn
    """Facts and draws by these two."""
    lead_draws: Sequence[Decision]
    decision: Decision

    def recommendation(self, rule: Rule) -> Recommendation:
        """Return the answer of a rule that applied, with its reason and confidence."""
        what, value = rule.what, self.decision.words(rule.what)
        shares = [_agreeing(draws, what, value) for draws in self.draws.values()]
        confidence = sum(shares) / len(shares)
        answers = {WAY_WORDS[way]: decide(drawn.facts)[0].words(what) for way, drawn in self.by.items()}
        return Recommendation(
            what=what,
            value=value,
            rule=rule.name,
            reason=rule.reason.format(**self._words()) + self._dissent(rule, value, answers, confidence),
            numbers=self._numbers(rule),
            confidence=confidence,
            source=rule.source,
            measure=WAY_WORDS[self.intensity if what == "pairs" else self.directions],
            sampling=_agreeing(self.lead_draws, what, value),
            answers=answers,
        )

    def _dissent(self, rule: Rule, value: str, answers: Mapping[str, str], confidence: float) -> str:
        """Return, for a rule that rests on energies, whether the measures agree, and how sure the answer is."""
        differing = sorted({answer for answer in answers.values() if answer != value})
        if rule.basis == "shapes" and not differing:
            return ""
        dissent = [f"{_listed([way for way in answers if answers[way] == other])}: {other}" for other in differing]
        sure = f", confidence {confidence:.2f}" if differing else ""
        agree = "disagree" if differing else "agree"
        if rule.what != "strategy":
            aside = f" ({'; '.join(dissent)})" if dissent else ""
            return f" The measures {agree}{aside}{sure}."
        needs = [f"{drawn.facts.shared:g} {WAY_WORDS[way]}" for way, drawn in self.by.items()]
        needs[0] = needs[0].replace(" ", " directions ", 1)
        held = 100 * self.teacher.taps[-1].strongest_channels(2)[1]
        aside = "; ".join([*dissent, f"two channels hold {held:.0f} % of the energy"])
        return (
            f" 95 % of the energy takes {', '.join(needs)}; student width {self.lead.facts.student.width}: the "
            f"measures {agree} ({aside}){sure}."
        )

    def _words(self) -> dict[str, object]:
        """Return what the sentences of the rules are filled with."""
        facts, last = self.lead.facts, self.teacher.taps[-1]
        counted = len(last.view(self.directions).own)
        seen, strength = (WAY_WORDS[way] if way != "raw" else "" for way in (self.directions, self.intensity))
        return {
            "f": facts,
            "s": facts.student,
            "student": facts.student_name,
            "student_last": facts.student.depth - 1,
            "student_taps": f"{facts.student.depth} {'blocks' if facts.student.isotropic else 'stages'}",
            "teacher_last": facts.teacher_depth - 1,
            "teacher_taps": f"{facts.teacher_depth} {'blocks' if facts.teacher_isotropic else 'stages'}",
            "interval": "[{:g}, {:g}]".format(*self._d95()),
            "kept": last.kept,
            "seen": seen and f", {seen}",
            "by": seen and f" ({seen})",
            "strength": strength and f" ({strength})",
            "percentile": f"99th percentile of {counted:,} images" if counted >= 100 else f"largest of {counted}",
            "layers": " ".join(map(str, facts.strongest)),
            "margin": self._margin(facts),
            "width": self.decision.width,
        }

    def _d95(self) -> list[float]:
        """Return both ends of the 95 % percentile interval of d95."""
        return [float(end) for end in np.percentile(self.lead.shared, [2.5, 97.5])]

    def _margin(self, facts: Facts) -> str:
        """Return by how much the strongest layers are stronger than the others, in words."""
        rows = np.arange(self.teacher.taps[-1].images)[None]
        means = intensities(self.teacher, rows, self.intensity)[0].tolist()
        others = [layer for layer in range(len(means)) if layer not in facts.strongest]
        if not others:
            return ""
        least, following = min(facts.strongest, key=means.__getitem__), max(others, key=means.__getitem__)
        return f" (the least, layer {least}, {means[least]:.4g}; the next, layer {following}, {means[following]:.4g})"

    def _numbers(self, rule: Rule) -> dict[str, float]:
        """Return the numbers behind an answer, by their names in words."""
        facts, last = self.lead.facts, self.teacher.taps[-1]
        low, high = self._d95()
        d95 = {"d95": facts.shared, "d95, low": low, "d95, high": high}
        if rule.what == "pairs":
            layers = range(len(self.teacher.taps)) if rule.name == "highest intensity" else ()
            chosen = [float(np.mean((self.lead.strongest == layer).any(axis=1))) for layer in layers]
            return {f"chosen, layer {layer}": share for layer, share in enumerate(chosen)}
        if rule.what == "width":
            widths = [decision.width for decision in self.lead_draws if decision.width is not None]
            ends = np.percentile(widths, [2.5, 97.5], method="nearest")
            return {**d95, "width, low": float(ends[0]), "width, high": float(ends[1])}
        view = last.view(self.directions)
        return {
            "student width": float(facts.student.width),
            "teacher width": float(last.width),
            **d95,
            "d95, 99th percentile": float(high_percentile(view.shared[:, ENERGY_SHARES.index(0.95)])),
            "directions of an image alone, 99th percentile": float(facts.own),
            "energy in the shared directions of the student's width": float(
                min(1.0, view.spectrum[: facts.student.width].sum())
            ),
            **{f"d95, {WAY_WORDS[way]}": drawn.facts.shared for way, drawn in self.by.items()},
            **{f"own, {WAY_WORDS[way]}": float(drawn.facts.own) for way, drawn in self.by.items()},
            "energy in the strongest channel": last.strongest_channels(1)[1],
            "energy in the two strongest channels": last.strongest_channels(2)[1],
        }


def _agreeing(decisions: Sequence[Decision], what: What, value: str) -> float:
    """Return the share of the draws that give this answer."""
    return sum(other.words(what) == value for other in decisions) / len(decisions)


def _listed(names: Sequence[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _summary(student: str, decision: Decision, recommendations: tuple[Recommendation, ...]) -> str:
    """Return the advice in one line, with what is weak and why."""
    weak = []
    for entry in recommendations:
        if entry.confidence is not None and entry.confidence < WEAK:
            why = f"only {entry.confidence:.0%} of the draws agree"
            if len(set(entry.answers.values())) > 1:
                why = f"confidence {entry.confidence:.2f}, the measures disagree"
            weak.append(f"{entry.what} ({entry.value}: {why})")
    said = f"{decision.words('strategy')} for {student}; {decision.words('pairs')}"
    return said + (f"; weak: {', '.join(weak)}" if weak else "")
