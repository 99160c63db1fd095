"""Whether a run and a baseline are of the same networks and images, and what else differs between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.artifact_records import Hardware
from vitcompress.core.words import counted
from vitcompress.pipeline.check.baseline import Baseline


def foreign(before: Baseline, now: Baseline) -> list[str]:
    """Tell what makes a comparison meaningless, other networks or images; nothing when it can be made."""
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
    """Tell what a reader must know besides: the deployed graph, its precision, the machine, the teacher."""
    told = []
    if before.models.graph != now.models.graph:
        told.append(f"The deployed graph was {before.models.graph} in the baseline and is {now.models.graph}.")
    for role, what in (("onnx", "ONNX file"), ("engine", "engine")):
        old, new = before.recommended.get(role), now.recommended.get(role)
        if old != new:
            told.append(f"The recommended {what} was {old or 'none'} in the baseline and is {new or 'none'}.")
    if before.hardware != now.hardware:
        told.append(
            f"The baseline was measured on {machine(before.hardware)}, this run on {machine(now.hardware)}: "
            "slowdown is that of the latency relative to the teacher's in the same run."
        )
    answers = [
        side.teacher["torch"].answers(side.images.count) if "torch" in side.teacher else None for side in (before, now)
    ]
    if changed := turned(*answers):
        told.append(
            f"The teacher answers {changed} of {now.images.count} images otherwise than in the baseline: it is not the "
            "same teacher, and its speed may differ too."
        )
    return told


def turned(old: NDArray[np.bool_] | None, new: NDArray[np.bool_] | None) -> int:
    """Count the images that only one of two models has right; 0 where the answers of one are unknown."""
    return 0 if old is None or new is None else int((old != new).sum())


def machine(hardware: Hardware | None) -> str:
    """Return hardware for use in a sentence."""
    if hardware is None:
        return "an unknown machine"
    gpu = f", {hardware.gpu}" if hardware.gpu else ""
    cores, threads = counted(hardware.cores, "core"), counted(hardware.threads, "thread")
    return f"{hardware.processor} ({cores}, {threads}{gpu})"
