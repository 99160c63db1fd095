"""Did it train well, and what was the teacher worth? Findings from records and from the epochs' metrics.

Every rule is deliberately slow to speak: a difference counts when it is larger than chance makes it on the held-out
images. Two evaluations answer the same images, of which only their shares are known here, so that the noise of two
independent ones, the larger, is assumed. Top-1 in percent, differences in points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal

from vitcompress.core.artifact_records import AccuracyRow, VerifyRecord
from vitcompress.core.records import ControlRecord
from vitcompress.core.words import counted
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
STARTS = {"": "", "random": " from random weights", "same": " from the same first weights"}
"""What a control began with, where the student began with its teacher's weights."""
RISE = 0.05
"""Share by which the loss must have risen above its lowest, for the mean over an epoch's drawn views moves a little."""
FAR = 5.0
"""Points below the teacher from which on it is asked whether the teacher helps at all."""
_Z = NormalDist().inv_cdf(0.975)
_SECTIONS = {"teacher": "teacher", "student": "distill"}
"""Settings of a training, by its name in the metrics."""
_ORDER = ("error", "warning", "note")


def findings(records: Records, history: Lines) -> list[Finding]:
    """Return everything found, the worst first; nothing where nothing was measured."""
    found = list(_findings(records, history))
    return sorted(found, key=lambda one: _ORDER.index(one.severity))


def _findings(records: Records, history: Lines) -> Iterator[Finding]:
    verify, control = records.verify, records.control
    student, teacher = (_in_torch(verify, model) for model in (records.distill.model.graph, "teacher"))
    yield from _student_at_chance(records, student)
    yield from _teacher_at_chance(records, teacher)
    if student is not None:
        for name, lines in last_settings(history).items():
            if name in _SECTIONS:
                yield from _of_training(name, lines, student.images, teacher_images=records.teacher.tuning_images)
    if control.gain_high is not None and control.gain_high < 0:
        yield _finding(
            "below-labels",
            f"labels alone give more than the teacher does ({control.val_top1:.1f} against "
            f"{control.distilled_top1:.1f} %): lower distill.alpha and distill.beta, or leave the teacher out",
        )
    if student is not None and set(records.distill.losses) != {"labels"}:  # it was taught by the teacher
        yield from _beside_the_teacher(student, control)


def _finding(code: str, text: str, severity: Literal["note", "warning", "error"] = "warning") -> Finding:
    """Return a finding; its text is one sentence without a capital and a stop, in numbers, with what to do."""
    return Finding(code=code, severity=severity, text=text)


def worth(control: ControlRecord) -> str:
    """Return what the teacher was worth, in a sentence without a capital and a stop; empty without a control."""
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
    """Return the measured row of a network as it was trained."""
    row = verify.accuracy_of(model, "torch", "fp32")
    return row if row is not None and row.top1 is not None else None


def _student_at_chance(records: Records, row: AccuracyRow | None) -> Iterator[Finding]:
    verdict, numbers = _against_chance(records, row)
    if verdict == "no better":
        failed = any(gate.gate == "above_chance" for gate in records.gates.rows)
        yield _finding(
            "never-left-chance",
            f"the student never left chance ({numbers}): see whether the class folders hold what their names say, then "
            "raise distill.epochs or distill.lr",
            "error" if failed else "warning",
        )
    if verdict == "undecided":
        text = f"too few images are held out to tell the student from chance ({numbers}): hold out more"
        yield _finding("chance-undecided", text, "note")


def _teacher_at_chance(records: Records, row: AccuracyRow | None) -> Iterator[Finding]:
    verdict, numbers = _against_chance(records, row)
    if verdict == "no better":
        remedy = "raise teacher.epochs or teacher.lr" if records.teacher.epochs else "check its weights"
        yield _finding("teacher-at-chance", f"the teacher is no better than chance ({numbers}): {remedy}")


def _against_chance(records: Records, row: AccuracyRow | None) -> tuple[str, str]:
    """Return the verdict of the exact test, and its numbers in words; no verdict where nothing was measured."""
    from vitcompress.stages.training.chance import against_chance, chance_of  # scipy takes long to import

    images = records.verify.class_images
    if row is None or row.top1 is None or not sum(images):
        return "", ""
    chance = chance_of(images, len(records.data.classes))
    numbers = f"{row.top1:.1f} % of {row.images:,} held-out images right, where chance is {100 * chance:.1f} %"
    return against_chance(round(row.top1 / 100 * row.images), row.images, chance), numbers


def _of_training(name: str, lines: Lines, images: int, *, teacher_images: int) -> Iterator[Finding]:
    """Yield what the epochs of one training say about its end.

    Args:
        name: of the training.
        lines: its epochs.
        images: held out.
        teacher_images: of the tuning part, by which a teacher's best epoch is chosen where it has one.
    """
    curve, chosen = evaluated(lines), any(line.get("judged_on") == "tuning" for line in lines)
    images = (teacher_images or images) if chosen else images
    if len(curve) > 1:
        yield from _still_improving(name, curve, images)
        if not chosen:  # else the best epoch's weights were kept
            yield from _past_its_best(name, curve, images)
    losses = [(line["epoch"], _comparable_loss(line)) for line in lines if _is_number(line.get("loss"))]
    if len(losses) > 2:
        yield from _loss_rising(name, losses)


def evaluated(lines: Lines) -> Curve:
    """Return top-1 at each evaluation, of raw or averaged weights, whichever were better and so would be kept."""
    found = []
    for line in lines:
        tops = [line[key] for key in ("val_top1_raw", "val_top1_ema") if _is_number(line.get(key))]
        found += [(line["epoch"], max(tops))] if tops else []
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


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


def _comparable_loss(line: Mapping[str, Any]) -> float:
    """Return an epoch's loss without balanced terms, whose value follows their scale and so differs between epochs."""
    losses, scales = line.get("losses") or {}, line.get("scales") or {}
    fixed = [losses[name] for name in losses if name not in scales]
    return float(sum(fixed)) if scales and fixed and all(map(_is_number, fixed)) else float(line["loss"])


def _loss_rising(name: str, losses: Curve) -> Iterator[Finding]:
    epoch, last = losses[-1]
    best_epoch, best = min(losses[:-1], key=lambda point: point[1])
    if last > losses[-2][1] and last > best + RISE * abs(best):
        yield _finding(
            f"{name}-loss-rising",
            f"the {name}'s loss rose at the end, from {best:.3g} in epoch {best_epoch} to {last:.3g} in epoch {epoch}: "
            f"lower {_SECTIONS[name]}.lr",
        )


def _beside_the_teacher(student: AccuracyRow, control: ControlRecord) -> Iterator[Finding]:
    """Yield how far the student is from its teacher."""
    top1, drop, low, high = student.top1, student.drop, student.drop_low, student.drop_high
    if top1 is None or drop is None or low is None or high is None:
        return
    if high < 0:
        yield _finding(
            "teacher-worse",
            f"the teacher is worse than its student by {-drop:.1f} points [{-high:.1f}, {-low:.1f}]: fit it longer "
            "(teacher.epochs), or rely on it less (distill.alpha)",
        )
    elif drop < 0:
        yield _finding(
            "teacher-near",
            f"the teacher is no better than its student ({top1 + drop:.1f} against {top1:.1f} %): there is little left "
            "that it could teach",
            "note",
        )
    elif low > FAR and control.kind == "none":
        yield _finding(
            "far-below-teacher",
            f"the student is {drop:.1f} points [{low:.1f}, {high:.1f}] below its teacher: compress run ... --control "
            "labels tells whether the teacher helps at all",
        )
