"""Write a baseline, telling what of the one before it changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vitcompress.core.errors import UsageError
from vitcompress.core.files import write_atomic
from vitcompress.pipeline.check.baseline import Baseline, load_baseline, text_of
from vitcompress.pipeline.check.same import DISTURBED, foreign, machine, turned
from vitcompress.pipeline.report.shape import Report


def update(path: Path, now: Baseline, report: Report, *, force: bool) -> list[str]:
    """Make ``now`` the baseline, unless nothing in it differs; return what was done, in lines for the reader.

    Args:
        path: of the baseline; made with its folder when there is none.
        now: what a run measured.
        report: that it was read from.
        force: also when the run failed its own gates, or the baseline there is of other models or images.

    Raises:
        UsageError: the file there is no baseline of this version, which ``force`` does not change; or ``force`` is
            needed; or the recommended ONNX file was not measured.
    """
    before = load_baseline(path) if path.exists() else None
    _refuse_unmeasured(now)
    if not force:
        _refuse_doubtful(path, before, now, report)
    told = [*differences(before, now)] if before else [*described(now)]
    if not told:
        return [f"baseline {path} is as this run measured it; left as it is"]
    write_atomic(Path(os.path.realpath(path)), text_of(now))  # a link is written through, not replaced
    if (now.disturbance or 0.0) >= DISTURBED:
        told.append(
            f"other processes took {now.disturbance:.0%} of the CPUs' time while it was measured; better one of an "
            "idle machine: `compress verify RUN`, then --update again"
        )
    return [f"baseline {path} {'replaced' if before else 'written'}", *(f"  {line}" for line in told)]


def _refuse_unmeasured(now: Baseline) -> None:
    name = now.recommended["onnx"]
    found, teacher = now.artifacts.get(str(name)), now.teacher.get("onnx")
    if not (found and found.right and found.session_p50_ms and teacher and teacher.session_p50_ms):
        raise UsageError(
            f"this run has no answers or no timing sessions of {name}, so it cannot be a baseline; "
            "run `compress verify RUN` again."
        )


def _refuse_doubtful(path: Path, before: Baseline | None, now: Baseline, report: Report) -> None:
    if not report.verdict.passed:
        raise UsageError(
            f"this run failed its own gates ({report.verdict.why}), so as a baseline it would hide that; "
            "mend the run, or add --force."
        )
    others = foreign(before, now) if before else []
    if others:
        raise UsageError(
            f"baseline '{path}' is of something else ({'; '.join(others)}); give another --baseline, or add --force "
            "to replace it."
        )


@dataclass(frozen=True)
class Fact:
    """One thing that a baseline says."""

    value: object
    """Two baselines agree where this is equal."""
    text: str
    unit: str = ""


def facts(one: Baseline) -> dict[str, dict[str, Fact]]:
    """Return what a baseline says but for when it was made, by model (or section) and name."""
    sections = {"models": one.models, "images": one.images}
    told = {place: {name: Fact(value, str(value)) for name, value in section} for place, section in sections.items()}
    told["hardware"] = {"": Fact(one.hardware, machine(one.hardware))}
    told["recommended"] = {role: Fact(name, name or "none") for role, name in one.recommended.items()}
    for place, measured in one.measured().items():
        top1 = "none" if measured.top1 is None else f"{measured.top1:.2f}"
        told[place] = {"top-1": Fact(measured.top1, top1, " %")}
        told[place]["bytes"] = Fact(measured.bytes, str(measured.bytes or "unknown"))
        told[place]["provider"] = Fact(measured.provider, measured.provider or "none")
        for batch, times in sorted(measured.session_p50_ms.items(), key=lambda item: int(item[0])):
            told[place][f"batch {batch}"] = Fact(times, f"{sorted(times)[len(times) // 2]:.4g}", " ms")
    return told


def described(one: Baseline) -> Iterator[str]:
    """Yield a line for each part of a baseline, with what is known of it."""
    for place, said in facts(one).items():
        known = [f"{name} {fact.text}{fact.unit}".strip() for name, fact in said.items() if fact.value]
        if place not in ("images", "recommended"):
            yield f"{place}: {', '.join(known)}"
    yield f"images: {one.images.count}"


def differences(before: Baseline, now: Baseline) -> Iterator[str]:
    """Yield ``what: old -> new`` for everything that differs but the time a baseline was made."""
    old, new, nothing = facts(before), facts(now), Fact(None, "none")
    for place in dict.fromkeys((*old, *new)):
        was, are = old.get(place, {}), new.get(place, {})
        for name in dict.fromkeys((*was, *are)):
            one, other = was.get(name, nothing), are.get(name, nothing)
            if one.value != other.value:
                what = f"{place}{'.' if place in ('models', 'images') else ' '}{name}".rstrip()
                yield f"{what}: {one.text} -> {other.text}{one.unit or other.unit}"
    count = now.images.count
    for name, measured in now.measured().items():
        earlier = before.measured().get(name)
        if (
            earlier
            and before.images.count == count
            and (many := turned(earlier.answers(count), measured.answers(count)))
        ):
            yield f"{name} answers: {many} of {count} images turn right or wrong"
