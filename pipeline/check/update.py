"""Write a baseline, telling what of the one before it changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError
from vitcompress.core.files import write_atomic
from vitcompress.pipeline.check.baseline import Baseline, Measured, load_baseline, text_of
from vitcompress.pipeline.check.disturbed import DISTURBED
from vitcompress.pipeline.check.same import foreign, machine


def update(path: Path, now: Baseline, report: dict[str, Any], *, force: bool) -> list[str]:
    """Make ``now`` the baseline, unless nothing in it differs; what was done, in lines for the reader.

    Args:
        path: of the baseline; made with its folder when there is none.
        now: what a run measured.
        report: that it was read from.
        force: also when the run failed its own gates, or the baseline there is of other networks or images.

    Raises:
        UsageError: the file there is no baseline of this version, which ``force`` does not change; or ``force`` is
            needed; or the recommended ONNX file was not measured.
    """
    before = load_baseline(path) if path.exists() else None
    file = Path(os.path.realpath(path))  # a link is written through, not replaced
    _refuse_unmeasured(now)
    if not force:
        _refuse_doubtful(path, before, now, report)
    if before is None:
        write_atomic(file, text_of(now))
        return [f"baseline {path} written", *(f"  {line}" for line in (*described(now), *doubts(now)))]
    told = [*differences(before, now)]
    if not told:
        return [f"baseline {path} is as this run measured it; left as it is"]
    write_atomic(file, text_of(now))
    return [f"baseline {path} replaced", *(f"  {line}" for line in (*told, *doubts(now)))]


def _refuse_unmeasured(now: Baseline) -> None:
    name = now.recommended["onnx"]
    found = now.artifacts.get(str(name))
    teacher = now.teacher.get("onnx")
    if not (found and found.right and found.session_p50_ms and teacher and teacher.session_p50_ms):
        raise UsageError(
            f"this run has no answers or no timing sessions of {name}, so it cannot be a baseline; "
            "run `compress verify RUN` again."
        )


def _refuse_doubtful(path: Path, before: Baseline | None, now: Baseline, report: dict[str, Any]) -> None:
    if not report["verdict"]["passed"]:
        raise UsageError(
            f"this run failed its own gates ({report['verdict']['why']}), so as a baseline it would hide that; "
            "mend the run, or add --force."
        )
    others = foreign(before, now) if before else []
    if others:
        raise UsageError(
            f"baseline '{path}' is of something else ({'; '.join(others)}); give another --baseline, or add --force "
            "to replace it."
        )


def doubts(one: Baseline) -> list[str]:
    """What speaks against a baseline, though it is written."""
    if (one.disturbance or 0.0) < DISTURBED:
        return []
    return [
        f"other processes took {one.disturbance:.0%} of the CPUs' time while it was measured; better one of an idle "
        "machine: `compress verify RUN`, then --update again"
    ]


def described(one: Baseline) -> Iterator[str]:
    """What a baseline holds, a line each."""
    yield f"{one.models.student} from {one.models.teacher}, {one.models.strategy}; {one.images.count} images"
    yield f"measured on {machine(one.hardware)}"
    for name, measured in sorted(one.artifacts.items()):
        timed = ", ".join(f"{_middle(times):.4g} ms at batch {batch}" for batch, times in _timed(measured))
        top1 = "no answers" if measured.top1 is None else f"top-1 {measured.top1:.2f} %"
        yield f"{name}: {top1}; {timed or 'no times'}; {measured.bytes or 'unknown'} bytes"


def differences(before: Baseline, now: Baseline) -> Iterator[str]:
    """``what: old -> new`` for everything that differs but the time a baseline was made."""
    for section in ("models", "images"):
        old, new = getattr(before, section), getattr(now, section)
        for field in type(old).model_fields:
            if getattr(old, field) != getattr(new, field):
                yield f"{section}.{field}: {getattr(old, field)} -> {getattr(new, field)}"
    if before.hardware != now.hardware:
        yield f"hardware: {machine(before.hardware)} -> {machine(now.hardware)}"
    for role in now.recommended:
        if before.recommended.get(role) != now.recommended[role]:
            yield f"recommended {role}: {before.recommended.get(role) or 'none'} -> {now.recommended[role] or 'none'}"
    for kind in ("teacher", "artifacts"):
        old, new = getattr(before, kind), getattr(now, kind)
        for name in sorted({*old, *new}):
            shown = f"{kind.removesuffix('s')} {name}"
            if name not in new or name not in old:
                yield f"{shown}: {'measured' if name in old else 'none'} -> {'none' if name in old else 'measured'}"
            else:
                yield from (f"{shown} {line}" for line in _changed(old[name], new[name], before, now))


def _changed(old: Measured, new: Measured, before: Baseline, now: Baseline) -> Iterator[str]:
    if old.top1 != new.top1:
        yield f"top-1: {_or_none(old.top1, '.2f')} -> {_or_none(new.top1, '.2f')} %"
    if old.right != new.right and before.images.count == now.images.count and old.right and new.right:
        count = now.images.count
        changed = int((old.answers(count) != new.answers(count)).sum())  # type: ignore[union-attr]
        yield f"answers: {changed} of {count} images turn right or wrong"
    if old.bytes != new.bytes:
        yield f"bytes: {old.bytes or 'unknown'} -> {new.bytes or 'unknown'}"
    if old.provider != new.provider:
        yield f"provider: {old.provider or 'none'} -> {new.provider or 'none'}"
    was, are = dict(_timed(old)), dict(_timed(new))
    for batch in dict.fromkeys((*was, *are)):
        if was.get(batch) != are.get(batch):
            shown = [f"{_middle(times):.4g}" if times else "none" for times in (was.get(batch), are.get(batch))]
            yield f"batch {batch}: {shown[0]} -> {shown[1]} ms"


def _timed(one: Measured) -> list[tuple[str, tuple[float, ...]]]:
    return sorted(one.session_p50_ms.items(), key=lambda item: int(item[0]))


def _middle(times: tuple[float, ...]) -> float:
    return sorted(times)[len(times) // 2]


def _or_none(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)
