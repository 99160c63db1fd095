"""Did it train well, and what was the teacher worth? Findings from records and from the epochs' metrics.

Every rule is slow to speak: a difference counts when it is larger than chance makes it on the held-out images. Two
evaluations answer the same images, of which only their shares are known here, so the noise of two independent ones,
which is larger, is assumed. Top-1 in percent, differences in points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal

from vitcompress.core.measured_records import AccuracyRow
from vitcompress.core.records import ControlRecord
from vitcompress.pipeline.report.readings import last_settings
from vitcompress.pipeline.report.records import Records
from vitcompress.pipeline.report.shape import Finding

Lines = Sequence[Mapping[str, Any]]
"""The epochs of a training, as they stand in ``metrics.jsonl``."""
Curve = list[tuple[int, float]]
"""(epoch, top-1 in percent), one an evaluation."""

LAST_SHARE = 0.1
"""Of a training's epochs, at whose beginning and end it is asked whether it still improves; at least one epoch."""
LEAST_GAIN = 0.5
"""Points; a smaller gain is not worth a longer training, however sure it is."""
_STARTS = {"": "", "random": " from random weights", "same": " from the same first weights"}
"""What a control began with, where the student began with its teacher's weights."""
_Z = NormalDist().inv_cdf(0.975)
_SECTIONS = {"teacher": "teacher", "student": "distill"}
"""Settings of a training, by its name in the metrics."""


def findings(records: Records, history: Lines) -> list[Finding]:
    """Return everything found, the worst first; nothing where nothing was measured."""
    student, teacher = (
        records.verify.accuracy_of(model, "torch", "fp32") for model in (records.distill.model.graph, "teacher")
    )
    found = [*_at_chance(records, student, "student"), *_at_chance(records, teacher, "teacher")]
    if student is not None and student.top1 is not None:
        for name, lines in last_settings(history).items():
            if name in _SECTIONS:
                found += _of_training(name, lines, student.images, records.teacher.tuning_images)
    control = records.control
    if control.gain_high is not None and control.gain_high < 0:
        text = (
            f"labels alone give more than the teacher does ({control.val_top1:.1f} against "
            f"{control.distilled_top1:.1f} %): lower distill.alpha and distill.beta, or leave the teacher out"
        )
        found.append(_finding("below-labels", text))
    return found


def _finding(code: str, text: str, severity: Literal["warning", "error"] = "warning") -> Finding:
    """Return a finding; its text is one sentence without a capital and a stop, in numbers, with what to do."""
    return Finding(code=code, severity=severity, text=text)


def worth(control: ControlRecord) -> str:
    """Return what the teacher was worth, in a sentence without a capital and a stop; empty without a control."""
    gain, low, high = control.gain, control.gain_low, control.gain_high
    if gain is None or low is None or high is None:
        return ""
    measured = f"{gain:+.1f} points [{low:.1f}, {high:.1f}]"
    over = f"over labels alone{_STARTS[control.start]} at equal steps"
    if low > 0:
        return f"the teacher was worth {measured} {over}"
    judged = "did harm here" if high < 0 else "was worth nothing here"
    return f"the teacher {judged}: {measured} {over}"


def _at_chance(records: Records, row: AccuracyRow | None, who: str) -> Iterator[Finding]:
    """Yield that a network is no better than chance, by an exact test."""
    from vitcompress.stages.judging.chance import against_chance, chance_of  # scipy takes long to import

    images = records.verify.class_images
    if records.verify.task != "classification" or row is None or row.top1 is None or not sum(images):
        return
    chance = chance_of(images, len(records.data.classes))
    if against_chance(round(row.top1 / 100 * row.images), row.images, chance) != "no better":
        return
    said = "right" if records.data.labelled else "answered as the teacher does"
    numbers = f"{row.top1:.1f} % of {row.images:,} held-out images {said}, where chance is {100 * chance:.1f} %"
    if who == "teacher":
        remedy = "raise teacher.epochs or teacher.lr" if records.teacher.epochs else "check its weights"
        yield _finding("teacher-at-chance", f"the teacher is no better than chance ({numbers}): {remedy}")
        return
    failed = any(gate.gate == "above_chance" for gate in records.gates.rows)
    yield _finding(
        "never-left-chance",
        f"the student never left chance ({numbers}): see whether the class folders hold what their names say, then "
        "raise distill.epochs or distill.lr",
        "error" if failed else "warning",
    )


def _of_training(name: str, lines: Lines, images: int, tuning_images: int) -> Iterator[Finding]:
    """Yield what the evaluations of one training say about its end.

    They are on the held-out ``images``; those of a teacher whose best epoch was chosen, on its ``tuning_images``.
    """
    curve = evaluated(lines)
    if len(curve) < 2:
        return
    chosen = any(line.get("judged_on") == "tuning" for line in lines)  # the best epoch's weights were kept
    yield from _still_improving(name, curve, (tuning_images or images) if chosen else images)
    if not chosen:
        yield from _past_its_best(name, curve, images)


def evaluated(lines: Lines) -> Curve:
    """Return top-1 at each evaluation, of raw or averaged weights, whichever were better and so would be kept."""
    found = []
    for line in lines:
        tops = [line.get(key) for key in ("val_top1_raw", "val_top1_ema")]
        known = [top for top in tops if top is not None and math.isfinite(top)]
        found += [(line["epoch"], max(known))] if known else []
    return found


def noise(one: float, other: float, images: int) -> float:
    """Return points by which two shares (percent), each of ``images`` images, differ by chance 19 times of 20."""
    variance = sum(share / 100 * (1 - share / 100) for share in (one, other)) / images
    return 100 * _Z * math.sqrt(variance)


def _still_improving(name: str, curve: Curve, images: int) -> Iterator[Finding]:
    epoch, last = curve[-1]
    span = max(1, math.ceil(LAST_SHARE * epoch))
    began, before = next((point for point in reversed(curve[:-1]) if point[0] <= epoch - span), curve[0])
    gain, span = last - before, epoch - began
    if gain >= LEAST_GAIN and gain > noise(last, before, images):
        what = "last epoch" if span == 1 else f"last {span} epochs"
        yield _finding(
            f"{name}-still-improving",
            f"the {name}'s {what} gained {gain:.1f} points ({before:.1f} to {last:.1f} %): train longer, for example "
            f"{_SECTIONS[name]}.epochs={2 * epoch}",
        )


def _past_its_best(name: str, curve: Curve, images: int) -> Iterator[Finding]:
    epoch, last = curve[-1]
    best_epoch, best = max(curve[:-1], key=lambda point: point[1])
    if best - last >= LEAST_GAIN and best - last > noise(best, last, images):
        yield _finding(
            f"{name}-past-its-best",
            f"the {name} was better before it ended, {best:.1f} % after epoch {best_epoch} and {last:.1f} % after "
            f"{epoch}: lower {_SECTIONS[name]}.lr, or {_SECTIONS[name]}.epochs to {best_epoch}",
        )
