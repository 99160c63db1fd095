"""Did it train well, and what was the teacher worth? Findings from records and from the epochs' metrics.

Every rule is deliberately slow to speak: a difference counts when it is larger than chance makes it on the held-out
images. Two evaluations answer the same images, of which only their shares are known here, so that the noise of two
independent ones, the larger, is assumed. Top-1 in percent, differences in points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

from vitcompress.core.artifact_records import AccuracyRow, GatesRecord, VerifyRecord
from vitcompress.core.records import ControlRecord, TeacherRecord
from vitcompress.core.words import counted
from vitcompress.pipeline.report.history import last_settings

Severity = Literal["note", "warning", "error"]
Curve = list[tuple[int, float]]
"""(epoch, top-1 in percent), one an evaluation."""

LAST_SHARE = 0.1
"""Of a training's epochs, at whose beginning and end it is asked whether it still improves; at least one epoch."""
LEAST_GAIN = 0.5
"""Points; a smaller gain is not worth a longer training, however sure it is."""
STARTS = {"": "", "random": " from random weights", "same": " from the same first weights"}
"""What a control began with, where the student began with its teacher's weights."""
RISE = 0.05
"""Share by which the loss must have risen above its lowest, for the mean over an epoch's drawn views moves a little."""
FAR = 5.0
"""Points below the teacher from which on it is asked whether the teacher helps at all."""
_Z = NormalDist().inv_cdf(0.975)
_SECTIONS = {"teacher": "teacher", "student": "distill"}
"""Settings of a training, by its name in the metrics."""


@dataclass(frozen=True)
class Finding:
    """One thing that a reader should know of a training."""

    code: str
    """Its name for machines, which stays."""
    severity: Severity
    """error: the result is wrong, and the run fails."""
    text: str
    """What was found, in numbers, and what to do; one sentence, without a capital and a stop."""


@dataclass(frozen=True)
class Subject:
    """What is asked about."""

    teacher: TeacherRecord
    control: ControlRecord
    verify: VerifyRecord
    gates: GatesRecord
    graph: str
    """The deployed one."""
    classes: int
    taught: bool
    """Whether the training used the teacher at all."""
    history: Sequence[Mapping[str, Any]]


def findings(subject: Subject) -> list[Finding]:
    """Everything found, the worst first; nothing where nothing was measured."""
    student, teacher = (_in_torch(subject.verify, model) for model in (subject.graph, "teacher"))
    found = [*_student_at_chance(subject, student), *_teacher_at_chance(subject, teacher)]
    if student is not None:
        for name, lines in last_settings([dict(line) for line in subject.history]).items():
            if name in _SECTIONS:
                found += _of_training(name, lines, student.images, teacher_images=subject.teacher.tuning_images)
    found += _labels_are_better(subject.control)
    if student is not None and subject.taught:
        found += _beside_the_teacher(student, subject.control)
    order = ("error", "warning", "note")
    return sorted(found, key=lambda one: order.index(one.severity))


def worth(control: ControlRecord) -> str:
    """What the teacher was worth, in a sentence without a capital and a stop; empty where no control was trained."""
    if control.gain is None:
        return ""
    ends = f"[{control.gain_low:.1f}, {control.gain_high:.1f}]"
    over = f"over labels alone{STARTS[control.start]} at equal {control.match}"
    if control.match == "time":
        over += f" ({counted(control.epochs, 'epoch')} without it)"
    if (control.gain_low or 0) > 0:
        return f"the teacher was worth {control.gain:+.1f} points {ends} {over}"
    if (control.gain_high or 0) < 0:
        return f"the teacher did harm here: {control.gain:+.1f} points {ends} {over}"
    shown = "" if control.gain <= 0 else f" that {control.images:,} images can show"
    return f"the teacher was worth nothing here{shown}: {control.gain:+.1f} points {ends} {over}"


def _in_torch(verify: VerifyRecord, model: str) -> AccuracyRow | None:
    """The measured row of a network as it was trained."""
    row = verify.accuracy_of(model, "torch", "fp32")
    return row if row is not None and row.top1 is not None else None


def _student_at_chance(subject: Subject, row: AccuracyRow | None) -> list[Finding]:
    verdict, told = _against_chance(subject, row)
    if verdict == "no better":
        failed = any(gate.gate == "above_chance" for gate in subject.gates.rows)
        what = (
            f"the student never left chance ({told}): see whether the class folders hold what their names say, then "
            "raise distill.epochs or distill.lr"
        )
        return [Finding("never-left-chance", "error" if failed else "warning", what)]
    if verdict == "undecided":
        what = f"too few images are held out to tell the student from chance ({told}): hold out more"
        return [Finding("chance-undecided", "note", what)]
    return []


def _teacher_at_chance(subject: Subject, row: AccuracyRow | None) -> list[Finding]:
    verdict, told = _against_chance(subject, row)
    if verdict != "no better":
        return []
    do = "raise teacher.epochs or teacher.lr" if subject.teacher.epochs else "check its weights"
    return [Finding("teacher-at-chance", "warning", f"the teacher is no better than chance ({told}): {do}")]


def _against_chance(subject: Subject, row: AccuracyRow | None) -> tuple[str, str]:
    """The verdict of the exact test, and its numbers in words; no verdict where nothing was measured."""
    from vitcompress.stages.training.chance import against_chance, chance_of  # scipy takes long to import

    images = subject.verify.class_images
    if row is None or row.top1 is None or not sum(images):
        return "", ""
    chance = chance_of(images, subject.classes)
    told = f"{row.top1:.1f} % of {row.images:,} held-out images right, where chance is {100 * chance:.1f} %"
    return against_chance(round(row.top1 / 100 * row.images), row.images, chance), told


def _of_training(name: str, lines: Sequence[Mapping[str, Any]], images: int, *, teacher_images: int) -> list[Finding]:
    """What the epochs of one training say about its end.

    Args:
        name: of the training.
        lines: its epochs.
        images: held out.
        teacher_images: of the tuning part, by which a teacher's best epoch is chosen where it has one.
    """
    section, curve = _SECTIONS[name], evaluated(lines)
    chosen = any(line.get("judged_on") == "tuning" for line in lines)
    images = (teacher_images or images) if chosen else images
    losses = [(line["epoch"], _comparable_loss(line)) for line in lines if _is_number(line.get("loss"))]
    return [
        *_still_improving(name, section, curve, images),
        *([] if chosen else _past_its_best(name, section, curve, images)),  # the best epoch's weights were kept
        *_loss_rising(name, section, losses),
    ]


def evaluated(lines: Sequence[Mapping[str, Any]]) -> Curve:
    """Top-1 at each evaluation, of raw or averaged weights, whichever were better and so would have been kept."""
    found = []
    for line in lines:
        tops = [line[key] for key in ("val_top1_raw", "val_top1_ema") if _is_number(line.get(key))]
        if tops:
            found.append((line["epoch"], max(tops)))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def noise(one: float, other: float, images: int) -> float:
    """Points by which two shares (percent) differ by chance, 19 times of 20, each on ``images`` images."""
    variance = sum(share / 100 * (1 - share / 100) for share in (one, other)) / images
    return 100 * _Z * math.sqrt(variance)


def _still_improving(name: str, section: str, curve: Curve, images: int) -> list[Finding]:
    if len(curve) < 2:
        return []
    epoch, last = curve[-1]
    span = max(1, math.ceil(LAST_SHARE * epoch))
    began, before = next((point for point in reversed(curve[:-1]) if point[0] <= epoch - span), curve[0])
    gain, span = last - before, epoch - began
    if gain < LEAST_GAIN or gain <= noise(last, before, images):
        return []
    what = "last epoch" if span == 1 else f"last {span} epochs"
    return [
        Finding(
            f"{name}-still-improving",
            "warning",
            f"the {name}'s {what} gained {gain:.1f} points ({before:.1f} to {last:.1f} %): train longer, for example "
            f"{section}.epochs={2 * epoch}",
        )
    ]


def _past_its_best(name: str, section: str, curve: Curve, images: int) -> list[Finding]:
    if len(curve) < 2:
        return []
    epoch, last = curve[-1]
    best_epoch, best = max(curve[:-1], key=lambda point: point[1])
    if best - last < LEAST_GAIN or best - last <= noise(best, last, images):
        return []
    return [
        Finding(
            f"{name}-past-its-best",
            "warning",
            f"the {name} was better before it ended, {best:.1f} % after epoch {best_epoch} and {last:.1f} % after "
            f"{epoch}: lower {section}.lr, or {section}.epochs to {best_epoch}",
        )
    ]


def _comparable_loss(line: Mapping[str, Any]) -> float:
    """An epoch's loss without balanced terms, whose value follows their scale and so differs between epochs."""
    losses, scales = line.get("losses") or {}, line.get("scales") or {}
    fixed = [losses[name] for name in losses if name not in scales]
    return float(sum(fixed)) if scales and fixed and all(map(_is_number, fixed)) else float(line["loss"])


def _loss_rising(name: str, section: str, losses: Curve) -> list[Finding]:
    if len(losses) < 3:
        return []
    epoch, last = losses[-1]
    best_epoch, best = min(losses[:-1], key=lambda point: point[1])
    if last <= losses[-2][1] or last <= best + RISE * abs(best):
        return []
    return [
        Finding(
            f"{name}-loss-rising",
            "warning",
            f"the {name}'s loss rose at the end, from {best:.3g} in epoch {best_epoch} to {last:.3g} in epoch {epoch}: "
            f"lower {section}.lr",
        )
    ]


def _labels_are_better(control: ControlRecord) -> list[Finding]:
    if control.gain_high is None or control.gain_high >= 0:
        return []
    return [
        Finding(
            "below-labels",
            "warning",
            f"labels alone give more than the teacher does ({control.val_top1:.1f} against "
            f"{control.distilled_top1:.1f} %): lower distill.alpha and distill.beta, or leave the teacher out",
        )
    ]


def _beside_the_teacher(student: AccuracyRow, control: ControlRecord) -> list[Finding]:
    """How far the student is from its teacher."""
    if student.drop is None or student.drop_low is None or student.drop_high is None or student.top1 is None:
        return []
    ends = f"[{abs(student.drop_low):.1f}, {abs(student.drop_high):.1f}]"
    teacher = student.top1 + student.drop
    if student.drop_high < 0:
        ends = f"[{-student.drop_high:.1f}, {-student.drop_low:.1f}]"
        what = (
            f"the teacher is worse than its student by {-student.drop:.1f} points {ends}: fit it longer "
            "(teacher.epochs), or rely on it less (distill.alpha)"
        )
        return [Finding("teacher-worse", "warning", what)]
    if student.drop < 0:
        what = (
            f"the teacher is no better than its student ({teacher:.1f} against {student.top1:.1f} %): "
            "there is little left that it could teach"
        )
        return [Finding("teacher-near", "note", what)]
    if student.drop_low > FAR and control.kind == "none":
        what = (
            f"the student is {student.drop:.1f} points {ends} below its teacher: compress run ... --control labels "
            "tells whether the teacher helps at all"
        )
        return [Finding("far-below-teacher", "warning", what)]
    return []
