"""The runs of a comparison, from their reports, and what stands in the way of comparing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.report.schema import AGAIN, read_report
from vitcompress.pipeline.report.shape import ModelRow, Report


@dataclass(frozen=True)
class Run:
    """The deployed artifact of one run. Quantities are dicts of value, low, high and reason (``shape.Quantity``)."""

    number: int
    """From 1, in the order given."""
    name: str
    """As given."""
    teacher: str
    student: str
    strategy: str
    artifact: str
    """Such as ``lift-folded fp16, ONNX CPU``."""
    top1: dict[str, Any]
    """Percent."""
    drop: dict[str, Any]
    """Points below this run's own teacher."""
    p50_ms: dict[str, Any]
    """Median latency at batch 1."""
    speedup: dict[str, Any]
    """Against this run's own teacher, same runtime, batch 1."""
    parameters: int | None
    bytes: int | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Runs, and what their numbers may be compared by."""

    runs: tuple[Run, ...]
    accuracy: str
    """Why top-1 cannot be compared; empty when it can."""
    time: str | None
    """``p50_ms`` or ``speedup``; None when neither can be compared."""
    warnings: tuple[str, ...]

    @property
    def undecided(self) -> str:
        """Why no run can be called better than another; empty when that can be decided."""
        if self.accuracy or self.time:
            return self.accuracy
        return "speed has no common measure, for machines differ, and teachers or execution providers too"


def compared(paths: Sequence[Path]) -> Comparison:
    """Return the comparison of the runs at ``paths`` (run directories, or ``report.json`` files).

    Raises:
        UsageError: fewer than two, or one that has no readable report, or none of a deployed model.
    """
    if len(paths) < 2:
        given = f"'{paths[0]}' alone" if paths else "none"
        raise UsageError(f"a comparison takes two runs or more, given was {given}; name another run directory.")
    reports = [read_report(path) for path in paths]
    rows = [_deployed(path, report) for path, report in zip(paths, reports, strict=True)]
    runs = [_run(number, str(path), rows[number - 1], reports[number - 1]) for number, path in enumerate(paths, 1)]
    accuracy, machine, teachers = _images(reports), _machines(reports), _teachers(reports)
    names = [row.provider or "not recorded" for row in rows]
    providers = f"the execution providers differ ({', '.join(names)})" if len(set(names)) > 1 else ""
    time = "p50_ms" if not machine else None if teachers or providers else "speedup"
    how = "is compared by speed-up, against each run's own teacher" if time else "cannot be compared"
    warnings = {
        f"{accuracy}: top-1 of one run says nothing about another's.": accuracy,
        f"{machine}: latency {how}.": machine,
        f"{providers}: how much faster than its teacher a model is depends on that.": machine and providers,
        f"{teachers}: drop and speed-up are each against a run's own.": teachers,
    }
    return Comparison(tuple(runs), accuracy, time, tuple(text for text, applies in warnings.items() if applies))


def _deployed(path: Path, report: Report) -> ModelRow:
    row = next((row for row in report.models if row.deployed), None)
    if row is None or "1" not in row.latency:
        lacks = "it has no deployed model, or no latency of it at batch 1"
        raise UsageError(f"the report of '{path}' is damaged ({lacks}); restore it, or {AGAIN}.")
    return row


def _run(number: int, name: str, row: ModelRow, report: Report) -> Run:
    training = report.training
    return Run(
        number=number,
        name=name,
        teacher=training.teacher.arch,
        student=training.student.arch,
        strategy=training.student.strategy,
        artifact=row.label.removeprefix("student ").removesuffix(" (deployed)"),
        top1=row.top1.model_dump(),
        drop=row.drop.model_dump(),
        p50_ms=row.latency["1"].p50_ms.model_dump(),
        speedup=row.latency["1"].speedup.model_dump(),
        parameters=row.parameters,
        bytes=row.bytes,
        verdict=report.verdict.word,
    )


def _images(reports: Sequence[Report]) -> str:
    """Tell how the held-out images differ; by the digest of the whole data where a report lacks the images' own."""
    own = all(report.images_digest for report in reports)
    digests = [report.images_digest if own else report.data.digest for report in reports]
    if len(set(digests)) == len({report.data.val_images for report in reports}) == 1:
        return ""
    groups: dict[str, list[str]] = {}
    for number, digest in enumerate(digests, 1):
        groups.setdefault(digest, []).append(str(number))
    return f"the held-out images differ ({'; '.join(' and '.join(group) for group in groups.values())})"


def _machines(reports: Sequence[Report]) -> str:
    """Tell how the hardware differs; nothing where it is known to be the same."""
    found = [dict(report.hardware) for report in reports if report.hardware]
    if len(found) < len(reports):
        unknown = [str(number) for number, report in enumerate(reports, 1) if report.hardware is None]
        return f"the hardware of {' and '.join(unknown)} is not recorded"
    differing = [key for key in found[0] if len({str(one[key]) for one in found}) > 1]
    told = "; ".join(f"{key}: {', '.join(str(one[key] or 'none') for one in found)}" for key in differing)
    return f"the hardware differs ({told})" if differing else ""


def _teachers(reports: Sequence[Report]) -> str:
    """Tell how the teachers differ in what decides their speed; their weights may differ."""
    costs = [(report.training.teacher.arch, report.artifacts.teacher.cost) for report in reports]
    if all(cost == costs[0] for cost in costs):
        return ""
    told = ", ".join(f"{arch} of {cost.parameters / 1e6:.2f} M parameters" for arch, cost in costs)
    return f"the teachers differ ({told})"
