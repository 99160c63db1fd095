"""Whether a run and a baseline are of the same thing, and what of it changed."""

from __future__ import annotations

from vitcompress.core.artifact_records import Hardware
from vitcompress.core.words import counted
from vitcompress.pipeline.check.baseline import Baseline
from vitcompress.pipeline.check.disturbed import DISTURBED, MARGIN


def foreign(before: Baseline, now: Baseline) -> list[str]:
    """What makes a comparison meaningless: other networks, or other images; empty when it can be made."""
    theirs, ours = before.models, now.models
    named = [("teacher", theirs.teacher, ours.teacher), ("student", theirs.student, ours.student)]
    named.append(("strategy", theirs.strategy, ours.strategy))
    told = [f"{what} {old}, here {new}" for what, old, new in named if old != new]
    if before.images.classes != now.images.classes:
        told.append("other classes")
    if before.images.count != now.images.count:
        told.append(f"{before.images.count} held-out images, here {now.images.count}")
    elif before.images.digest != now.images.digest:
        told.append(f"{before.images.count} other held-out images")
    return told


def notes(before: Baseline, now: Baseline) -> list[str]:
    """What a reader must know besides: the deployed graph, its precision, the machine, the teacher."""
    told = []
    if before.models.graph != now.models.graph:
        told.append(f"The deployed graph was {before.models.graph} in the baseline and is {now.models.graph}.")
    for role, what in (("onnx", "ONNX file"), ("engine", "engine")):
        old, new = before.recommended.get(role), now.recommended.get(role)  # type: ignore[call-overload]
        if old != new:
            told.append(f"The recommended {what} was {old or 'none'} in the baseline and is {new or 'none'}.")
    if before.hardware != now.hardware:
        told.append(
            f"The baseline was measured on {machine(before.hardware)}, this run on {machine(now.hardware)}: "
            "slowdown is that of the latency relative to the teacher's in the same run."
        )
    if before.hardware and now.hardware and before.hardware.threads != now.hardware.threads:
        told.append(
            f"Models ran on {counted(before.hardware.threads, 'thread')} in the baseline and on "
            f"{now.hardware.threads} here: threads help a large teacher more than a small student, which can look like "
            "a slowdown; set verify.threads to the same number on both machines."
        )
    for whose, side in (("The baseline", before), ("This run", now)):
        if (side.disturbance or 0.0) >= DISTURBED:
            told.append(
                f"{whose} was measured while other processes took {side.disturbance:.0%} of the CPUs' time: a slowdown "
                f"counts from {MARGIN:g} points beyond its limit."
            )
    changed = _teacher_changed(before, now)
    if changed:
        told.append(
            f"The teacher answers {changed} of {now.images.count} images otherwise than in the baseline: it is not the "
            "same teacher, and its speed may differ too."
        )
    return told


def _teacher_changed(before: Baseline, now: Baseline) -> int:
    """Images that the teacher in torch had right on one side alone."""
    count = now.images.count
    old, new = (side.teacher["torch"].answers(count) if "torch" in side.teacher else None for side in (before, now))
    return 0 if old is None or new is None else int((old != new).sum())


def machine(hardware: Hardware | None) -> str:
    """Hardware in a sentence."""
    if hardware is None:
        return "an unknown machine"
    gpu = f", {hardware.gpu}" if hardware.gpu else ""
    cores, threads = counted(hardware.cores, "core"), counted(hardware.threads, "thread")
    return f"{hardware.processor} ({cores}, {threads}{gpu})"
