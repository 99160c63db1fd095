"""What differs between a baseline and a run, or between two baselines, in words."""

from __future__ import annotations

from collections.abc import Iterator

from vitcompress.core.measured_records import Hardware
from vitcompress.core.words import counted
from vitcompress.pipeline.check.baseline import Baseline, Measured


def foreign(before: Baseline, now: Baseline) -> list[str]:
    """Tell what makes a comparison meaningless, other networks or images; nothing when it can be made."""
    told = [
        f"{what} {getattr(before.models, what)}, here {getattr(now.models, what)}"
        for what in ("teacher", "student", "strategy")
        if getattr(before.models, what) != getattr(now.models, what)
    ]
    if before.score != now.score:
        told.append(f"judged by {before.score}, here by {now.score}")
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
    for role, what in (("onnx", "ONNX file"), ("engine", "artifact of another target")):
        old, new = before.recommended.get(role), now.recommended.get(role)
        if old != new:
            told.append(f"The recommended {what} was {old or 'none'} in the baseline and is {new or 'none'}.")
    if before.hardware != now.hardware:
        told.append(
            f"The baseline was measured on {machine(before.hardware)}, this run on {machine(now.hardware)}: "
            "slowdown is that of the latency relative to the teacher's in the same run."
        )
    threads = [side.hardware.threads if side.hardware else None for side in (before, now)]
    if None not in threads and threads[0] != threads[1]:
        told.append(
            f"Models ran on {threads[0]} threads in the baseline and on {threads[1]} here, which helps a large teacher "
            "more than a small student and can look like a slowdown; set verify.threads to the same number."
        )
    if changed := _turned(before.teacher.get("torch"), now.teacher.get("torch"), now.images.count):
        told.append(
            f"The teacher answers {changed} of {now.images.count} images otherwise than in the baseline: it is not the "
            "same teacher, and its speed may differ too."
        )
    return told


def changes(before: Baseline | None, now: Baseline) -> Iterator[str]:
    """Yield a line for each thing that ``now`` says: ``what: old -> new`` where there is one before, and it differs."""
    old, new, count = _facts(before) if before else {}, _facts(now), now.images.count
    for name in dict.fromkeys((*old, *new)):
        if before is None:
            yield f"{name}: {new[name]}"
        elif old.get(name) != new.get(name):
            yield f"{name}: {old.get(name, 'none')} -> {new.get(name, 'none')}"
    for name, measured in now.measured().items():
        earlier = before.measured().get(name) if before and before.images.count == count else None
        if many := _turned(earlier, measured, count):
            yield f"{name}: {many} of {count} images turn right or wrong"


def _facts(one: Baseline) -> dict[str, str]:
    """Return what a baseline says but for when it was made, in words."""
    models, share = one.models, "an unknown share" if one.disturbance is None else f"{one.disturbance:.0%}"
    told = {
        "models": f"{models.student} from {models.teacher}, {models.strategy}; deployed {models.graph}",
        "images": f"{one.images.count}, digest {one.images.digest[:12]}",
        "hardware": f"{machine(one.hardware)}, others took {share} of the CPUs' time",
        "recommended": ", ".join(filter(None, one.recommended.values())),
    }
    return told | {name: f"{value:{form}} {unit}" for name, (value, form, unit) in _measures(one).items()}


def _measures(one: Baseline) -> dict[str, tuple[float, str, str]]:
    """Return each measured number of a baseline: value, format and unit."""
    told: dict[str, tuple[float, str, str]] = {}
    for name, measured in one.measured().items():
        if measured.top1 is not None:
            told[f"{name} {one.score}"] = measured.top1, ".2f", "%"
        if measured.bytes is not None:
            told[f"{name} size"] = measured.bytes, "d", "bytes"
        for batch, times in measured.session_p50_ms.items():
            told[f"{name} batch {batch}"] = sorted(times)[len(times) // 2], ".4g", "ms"
    return told


def side_by_side(before: Baseline, now: Baseline) -> list[dict[str, str]]:
    """Return a row for each number of either: what it is, the baseline's, this run's, and the change."""
    old, new = _measures(before), _measures(now)
    rows = []
    for name in dict.fromkeys((*old, *new)):
        texts = [f"{side[name][0]:{side[name][1]}} {side[name][2]}" if name in side else "none" for side in (old, new)]
        change = ""
        if name in old and name in new:
            was, value, unit = old[name][0], new[name][0], new[name][2]
            change = f"{value - was:+.2f} points" if unit == "%" else f"{100 * (value / was - 1):+.1f} %"
        rows.append({"what": name, "baseline": texts[0], "run": texts[1], "change": change})
    return rows


def _turned(old: Measured | None, new: Measured | None, count: int) -> int:
    """Count the images that only one of two models has right; 0 where the answers of one are unknown."""
    one, other = (side.answers(count) if side else None for side in (old, new))
    return 0 if one is None or other is None else int((one != other).sum())


def machine(hardware: Hardware | None) -> str:
    """Return hardware for use in a sentence."""
    if hardware is None:
        return "an unknown machine"
    gpu = f", {hardware.gpu}" if hardware.gpu else ""
    cores, threads = counted(hardware.cores, "core"), counted(hardware.threads, "thread")
    return f"{hardware.processor} ({cores}, {threads}{gpu})"
