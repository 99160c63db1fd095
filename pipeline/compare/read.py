"""The runs of a comparison, from their reports, what stands in the way of comparing them, and which are worth having.

Worth having are those that no other beats in top-1 without being slower, or in speed without losing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.check.differences import machine
from vitcompress.pipeline.report.schema import AGAIN, read_report
from vitcompress.pipeline.report.shape import Report
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
    score: str = "top-1"
    """What ``top1`` is, in words."""


@dataclass(frozen=True)
class Comparison:
    """Runs, and whether their numbers may be compared."""

    runs: tuple[Run, ...]
    undecided: str
    """Why no run can be called better than another; empty when that can be decided."""
    warnings: tuple[str, ...]


def compared(paths: Sequence[Path]) -> Comparison:
    """Return the comparison of two runs or more, folders or reports; a UsageError is raised for what cannot be read."""
    if len(paths) < 2:
        given = f"'{paths[0]}' alone" if paths else "none"
        raise UsageError(f"a comparison takes two runs or more, given was {given}; name another run directory.")
    reports = [read_report(path) for path in paths]
    runs = [deployed_run(number, *given) for number, given in enumerate(zip(paths, reports, strict=True), 1)]
    images = _differing("held-out images differ", [report.images_digest[:8] for report in reports])
    images = _differing("runs are judged by different scores", [run.score for run in runs]) or images
    machines = _differing("hardware differs", [machine(report.hardware) for report in reports])
    if not all(report.hardware for report in reports):
        machines = "not all of the hardware is recorded"
    costs = [(report.training.teacher.arch, report.artifacts.teacher.cost) for report in reports]
    teachers = _differing(
        "teachers differ",
        [f"{arch}, {short_count(one.parameters)} parameters, {short_count(one.macs)} MACs" for arch, one in costs],
    )
    warnings = {
        f"{images}: {runs[0].score} of one run says nothing about another's.": images,
        f"{machines}: latencies of two machines are not compared; `compress verify RUN` measures again.": machines,
        f"{teachers}: drop and speed-up are each against a run's own.": teachers,
    }
    return Comparison(tuple(runs), images or machines, tuple(text for text, applies in warnings.items() if applies))


def deployed_run(number: int, path: Path, report: Report) -> Run:
    """Return a run's deployed artifact; a UsageError is raised for a report without one."""
    row = next((row for row in report.models if row.deployed), None)
    if row is None or "1" not in row.latency:
        lacks = "it has no deployed model, or no latency of it at batch 1"
        raise UsageError(f"the report of '{path}' is damaged ({lacks}); restore it, or {AGAIN}.")
    training = report.training
    return Run(
        number=number,
        name=str(path),
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
        score=report.score.label,
    )


def _differing(what: str, values: Sequence[str]) -> str:
    """Return ``the WHAT (value of each run)`` where the values are not all the same, else nothing."""
    return f"the {what} ({', '.join(values)})" if len(set(values)) > 1 else ""


@dataclass(frozen=True)
class Standing:
    """Where one run stands among the others, by measured values."""

    run: Run
    by: tuple[int, ...] = ()
    """Numbers of the runs that dominate it: none is worse in top-1 or speed, and each is better in one of them."""
    overlapping: tuple[str, ...] = ()
    """Of the score and ``latency``, those whose 95 % interval overlaps the first dominating run's."""
    unplaced: str = ""
    """Why it cannot be placed; it then neither dominates nor is dominated."""

    @property
    def optimal(self) -> bool:
        """Whether it is on the Pareto front."""
        return not self.by and not self.unplaced


def standings(comparison: Comparison) -> tuple[Standing, ...]:
    """Return one standing a run, in their order; all are unplaced when ``comparison.undecided``."""
    if comparison.undecided:
        return tuple(Standing(run, unplaced=comparison.undecided) for run in comparison.runs)
    placed = [run for run in comparison.runs if not _lacking(run)]
    found = []
    for run in comparison.runs:
        if lacking := _lacking(run):
            found.append(Standing(run, unplaced=lacking))
            continue
        better = [one for one in placed if _dominates(one, run)]
        better.sort(key=_score, reverse=True)
        pairs = {run.score: (better[0].top1, run.top1), "latency": (better[0].p50_ms, run.p50_ms)} if better else {}
        overlapping = tuple(name for name, pair in pairs.items() if _overlap(*pair))
        found.append(Standing(run, tuple(one.number for one in better), overlapping))
    return tuple(found)


def _lacking(run: Run) -> str:
    """Return why a run has no place; empty when both numbers were measured."""
    both = {run.score: run.top1, "latency": run.p50_ms}
    return "; ".join(f"{name} unmeasured: {one['reason']}" for name, one in both.items() if one["value"] is None)


def _score(run: Run) -> tuple[float, float]:
    """Return top-1 and speed; more is better."""
    return run.top1["value"], -run.p50_ms["value"]


def _dominates(one: Run, other: Run) -> bool:
    (top1, speed), (its_top1, its_speed) = _score(one), _score(other)
    return _score(one) != _score(other) and top1 >= its_top1 and speed >= its_speed


def _overlap(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Return whether two intervals have a number in common; one that is unknown is taken for its value alone."""
    (low, high), (their_low, their_high) = (
        (one["value"], one["value"]) if one["low"] is None else (one["low"], one["high"]) for one in (first, second)
    )
    return bool(low <= their_high and their_low <= high)
