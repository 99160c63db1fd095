"""Strategy, layer pairs and width from a teacher's features, before anything is trained.

The rules are in ``stages.analysis.rules``. They are applied to the features as measured in each of WAYS
(``stages.analysis.drawn``), because energies and intensities follow massive activations, and no measure is known to be
the right one. The confidence of an answer is the share of bootstrap draws of the images for which the same table gives
the same answer, mean over the measures: it tells how much that depends on which images were read and on how energy is
measured, and nothing about whether the rule holds for this teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vitcompress.core.analysis_records import Advice, Recommendation
from vitcompress.stages.analysis.drawn import Drawn, drawn_by_way, leading
from vitcompress.stages.analysis.results import ENERGY_SHARES, WAY_WORDS, NetworkResult, Way, high_percentile
from vitcompress.stages.analysis.rules import Decision, Rule, What, decide
from vitcompress.stages.analysis.statistics import MIN_IMAGES
from vitcompress.stages.models.geometry import Shape

WEAK = 0.9
"""Confidence below which an answer is called weak."""


def advise(teacher: NetworkResult, student: Shape, student_name: str, *, seed: int = 0) -> Advice:
    """Return what to train the student by, with reasons and confidence.

    ``student`` is the unchanged student's shape; the same ``seed`` of the bootstrap gives the same record. With fewer
    than ``MIN_IMAGES`` images the advice recommends nothing, and says why.
    """
    last = teacher.taps[-1]
    if min(last.images, last.kept) < MIN_IMAGES:
        why = f"{last.images} images were read, {last.kept} of them kept, and at least {MIN_IMAGES} of each are needed."
        return _nothing(last.images, why)
    by = drawn_by_way(teacher, student, student_name, seed)
    directions = leading({way: decide(drawn.facts)[0].words("strategy") for way, drawn in by.items()})
    intensity = leading({way: drawn.facts.strongest for way, drawn in by.items()})
    facts = replace(by[directions].facts, strongest=by[intensity].facts.strongest)
    lead = replace(by[directions], facts=facts, strongest=by[intensity].strongest)
    decision, applied = decide(facts)
    draws = {way: drawn.decisions() for way, drawn in by.items()}
    lead_draws = lead.decisions()
    low, high = _d95(lead)
    recommendations = []
    for what, rule in applied.items():
        value = decision.words(what)
        shares = [_agreeing(decisions, what, value) for decisions in draws.values()]
        confidence = sum(shares) / len(shares)
        answers = {WAY_WORDS[way]: decide(drawn.facts)[0].words(what) for way, drawn in by.items()}
        others = [f"{way}: {answer}" for way, answer in answers.items() if answer != value]
        dissent = f" The measures disagree ({'; '.join(others)}), confidence {confidence:.2f}." if others else ""
        recommendations.append(
            Recommendation(
                what=what,
                value=value,
                rule=rule.name,
                reason=rule.reason.format(f=facts, width=decision.width, low=low, high=high) + dissent,
                numbers=_numbers(rule, teacher, by, directions, lead, lead_draws),
                confidence=confidence,
                source=rule.source,
                measure=WAY_WORDS[intensity if what == "pairs" else directions],
                sampling=_agreeing(lead_draws, what, value),
                answers=answers,
            )
        )
    return Advice(
        strategy=decision.strategy,
        kind=decision.kind,
        pairs=decision.pairs,
        wide_heads=decision.wide_heads,
        images=last.images,
        recommendations=tuple(recommendations),
        summary=_summary(student_name, decision, recommendations),
    )


def _nothing(images: int, why: str) -> Advice:
    source = "this project: stages.analysis.statistics.MIN_IMAGES"
    none = Recommendation(
        what="strategy", value=None, rule="too few images", reason=why, numbers={}, confidence=None, source=source
    )
    summary = f"nothing is recommended: {why}"
    return Advice(
        strategy=None, kind=None, pairs=(), wide_heads=None, images=images, recommendations=(none,), summary=summary
    )


def _d95(lead: Drawn) -> tuple[float, float]:
    """Return both ends of the 95 % percentile interval of d95."""
    low, high = np.percentile(lead.shared, [2.5, 97.5])
    return float(low), float(high)


def _numbers(
    rule: Rule,
    teacher: NetworkResult,
    by: Mapping[Way, Drawn],
    directions: Way,
    lead: Drawn,
    lead_draws: Sequence[Decision],
) -> dict[str, float]:
    """Return the numbers behind the answer of a rule, by their names in words; for the rest see ``advise``."""
    facts, last = lead.facts, teacher.taps[-1]
    low, high = _d95(lead)
    d95 = {"d95": facts.shared, "d95, low": low, "d95, high": high}
    if rule.what == "pairs":
        layers = range(len(teacher.taps)) if rule.name == "highest intensity" else ()
        return {f"chosen, layer {layer}": float(np.mean((lead.strongest == layer).any(axis=1))) for layer in layers}
    if rule.what == "width":
        widths = [decision.width for decision in lead_draws if decision.width is not None]
        ends = np.percentile(widths, [2.5, 97.5], method="nearest")
        return {**d95, "width, low": float(ends[0]), "width, high": float(ends[1])}
    view = last.view(directions)
    return {
        "student width": float(facts.student.width),
        "teacher width": float(last.width),
        **d95,
        "d95, 99th percentile": float(high_percentile(view.shared[:, ENERGY_SHARES.index(0.95)])),
        "directions of an image alone, 99th percentile": float(facts.own),
        "energy in the shared directions of the student's width": float(
            min(1.0, view.spectrum[: facts.student.width].sum())
        ),
        **{f"d95, {WAY_WORDS[way]}": drawn.facts.shared for way, drawn in by.items()},
        **{f"own, {WAY_WORDS[way]}": float(drawn.facts.own) for way, drawn in by.items()},
        "energy in the strongest channel": last.strongest_channels(1)[1],
        "energy in the two strongest channels": last.strongest_channels(2)[1],
    }


def _agreeing(decisions: Sequence[Decision], what: What, value: str) -> float:
    """Return the share of the draws that give this answer."""
    return sum(other.words(what) == value for other in decisions) / len(decisions)


def _summary(student: str, decision: Decision, recommendations: Sequence[Recommendation]) -> str:
    """Return the advice in one line, with the answers that are weak."""
    weak = [
        f"{entry.what} ({entry.value}: confidence {entry.confidence:.2f})"
        for entry in recommendations
        if entry.confidence is not None and entry.confidence < WEAK
    ]
    said = f"{decision.words('strategy')} for {student}; {decision.words('pairs')}"
    return said + (f"; weak: {', '.join(weak)}" if weak else "")
