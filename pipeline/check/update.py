"""Write a baseline, telling what of the one before it changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from vitcompress.core.errors import UsageError
from vitcompress.core.files import write_atomic
from vitcompress.pipeline.check.baseline import Baseline, load_baseline, text_of
from vitcompress.pipeline.check.same import foreign, machine, turned
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
    if before and before.model_copy(update={"made": now.made}) == now:
        return [f"baseline {path} is as this run measured it; left as it is"]
    write_atomic(Path(os.path.realpath(path)), text_of(now))  # a link is written through, not replaced
    told = differences(before, now) if before else described(now)
    return [f"baseline {path} {'replaced' if before else 'written'}", *(f"  {line}" for line in told)]


def _refuse_unmeasured(now: Baseline) -> None:
    name = now.recommended.get("onnx")
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


def facts(one: Baseline) -> dict[str, dict[str, str]]:
    """Return what a baseline says but for when it was made, in words, by model (or section) and name."""
    share = "an unknown share" if one.disturbance is None else f"{one.disturbance:.0%}"
    told = {
        "models": {name: str(value) for name, value in one.models},
        "images": {name: str(value)[:12] for name, value in one.images},
        "hardware": {"": machine(one.hardware), "others took": f"{share} of the CPUs' time"},
        "recommended": {role: name or "none" for role, name in one.recommended.items()},
    }
    for place, measured in one.measured().items():
        top1 = "none" if measured.top1 is None else f"{measured.top1:.2f} %"
        size = "unknown" if measured.bytes is None else str(measured.bytes)
        told[place] = {"top-1": top1, "bytes": size, "provider": measured.provider or "none"}
        for batch, times in measured.session_p50_ms.items():
            told[place][f"batch {batch}"] = f"{sorted(times)[len(times) // 2]:.4g} ms"
    return told


def described(one: Baseline) -> Iterator[str]:
    """Yield a line for each part of a baseline, with what is known of it."""
    for place, said in facts(one).items():
        yield f"{place}: {', '.join(f'{name} {text}'.strip() for name, text in said.items())}"


def differences(before: Baseline, now: Baseline) -> Iterator[str]:
    """Yield ``what: old -> new`` for everything that differs but the time a baseline was made."""
    old, new = facts(before), facts(now)
    for place in dict.fromkeys((*old, *new)):
        was, are = old.get(place, {}), new.get(place, {})
        for name in dict.fromkeys((*was, *are)):
            if was.get(name) != are.get(name):
                yield f"{f'{place} {name}'.strip()}: {was.get(name, 'none')} -> {are.get(name, 'none')}"
    count = now.images.count
    if before.images.count == count:
        for name, measured in now.measured().items():
            earlier = before.measured().get(name)
            many = turned(earlier.answers(count), measured.answers(count)) if earlier else 0
            if many:
                yield f"{name} answers: {many} of {count} images turn right or wrong"
