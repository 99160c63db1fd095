"""The runs of a comparison, from their reports, and what stands in the way of comparing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.check.differences import machine
from vitcompress.pipeline.report.schema import AGAIN, read_report
from vitcompress.pipeline.report.shape import ModelRow, Report
from vitcompress.pipeline.report.wording import short_count


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
    """Runs, and whether their numbers may be compared."""

    runs: tuple[Run, ...]
    undecided: str
    """Why no run can be called better than another; empty when that can be decided."""
    warnings: tuple[str, ...]


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
    own = all(report.images_digest for report in reports)  # the digest of the whole data where one lacks the images'
    digests = [(report.images_digest if own else report.data.digest)[:8] for report in reports]
    images = _differing("held-out images differ", digests)
    machines = _differing("hardware differs", [machine(report.hardware) for report in reports])
    if not all(report.hardware for report in reports):
        machines = "not all of the hardware is recorded"
    costs = [(report.training.teacher.arch, report.artifacts.teacher.cost) for report in reports]
    teachers = _differing(
        "teachers differ",
        [f"{arch}, {short_count(one.parameters)} parameters, {short_count(one.macs)} MACs" for arch, one in costs],
    )
    warnings = {
        f"{images}: top-1 of one run says nothing about another's.": images,
        f"{machines}: latencies of two machines are not compared; `compress verify RUN` measures again.": machines,
        f"{teachers}: drop and speed-up are each against a run's own.": teachers,
    }
    return Comparison(tuple(runs), images or machines, tuple(text for text, applies in warnings.items() if applies))


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


def _differing(what: str, values: Sequence[str]) -> str:
    """Return ``the WHAT (value of each run)`` where the values are not all the same, else nothing."""
    return f"the {what} ({', '.join(values)})" if len(set(values)) > 1 else ""
