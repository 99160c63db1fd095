"""The runs of a comparison, from their reports, and what stands in the way of comparing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.report.schema import AGAIN, load_report


@dataclass(frozen=True)
class Run:
    """The deployed artifact of one run. Quantities are dicts of value, low, high and reason (``report.shape``)."""

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
    teacher_top1: dict[str, Any]
    teacher_p50_ms: dict[str, Any]
    parameters: int | None
    bytes: int | None
    verdict: str
    teacher_gain: dict[str, Any] | None = None
    """Points of top-1 that its teacher was worth over labels alone; None where no control was trained."""
    worth: str = ""
    """The same in words."""


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
        no_time = (
            ""
            if self.time
            else "speed has no common measure, for machines differ, and teachers or execution providers too"
        )
        return self.accuracy or no_time


def compared(paths: Sequence[Path]) -> Comparison:
    """The runs at ``paths`` (run directories, or ``report.json`` files).

    Raises:
        UsageError: fewer than two, one twice, or one that has no readable report, or none of a deployed model.
    """
    if len(paths) < 2:
        given = f"'{paths[0]}' alone" if paths else "none"
        raise UsageError(f"a comparison takes two runs or more, given was {given}; name another run directory.")
    places = [_place(path) for path in paths]
    for index, place in enumerate(places):
        if place in places[:index]:
            first = paths[places.index(place)]
            raise UsageError(f"'{paths[index]}' is the same run as '{first}'; give each run once.")
    reports = [load_report(path) for path in paths]
    runs = tuple(_run(number, str(path), one) for number, (path, one) in enumerate(zip(paths, reports, strict=True), 1))
    accuracy = _images(reports)
    machine = _machines(reports)
    teachers = _teachers(reports)
    providers = _providers(reports)
    time = "p50_ms" if not machine else None if teachers or providers else "speedup"
    warnings = [f"{accuracy}: top-1 of one run says nothing about another's."] if accuracy else []
    if machine:
        how = "is compared by speed-up, against each run's own teacher" if time else "cannot be compared"
        warnings.append(f"{machine}: latency {how}.")
    if machine and providers:
        warnings.append(f"{providers}: how much faster than its teacher a model is depends on that.")
    if teachers:
        warnings.append(f"{teachers}: drop and speed-up are each against a run's own.")
    return Comparison(runs, accuracy, time, tuple(warnings))


def _place(path: Path) -> Path:
    """Where the report lies, however the run is written."""
    return ((path / "report" / "report.json") if path.is_dir() else path).resolve()


def _run(number: int, name: str, report: dict[str, Any]) -> Run:
    row = next((row for row in report["models"] if row["deployed"]), None)
    if row is None or "1" not in row["latency"]:
        lacks = "no deployed model" if row is None else "no latency at batch 1 of its deployed model"
        raise UsageError(f"the report of '{name}' is damaged ({lacks}); restore it, or {AGAIN}.")
    head, training = report["headline"], report["training"]
    control = training["control"]
    return Run(
        number=number,
        name=name,
        teacher=training["teacher"]["arch"],
        student=training["student"]["arch"],
        strategy=training["student"]["strategy"],
        artifact=row["label"].removeprefix("student ").removesuffix(" (deployed)"),
        top1=row["top1"],
        drop=row["drop"],
        p50_ms=row["latency"]["1"]["p50_ms"],
        speedup=row["latency"]["1"]["speedup"],
        teacher_top1=head["teacher_top1"],
        teacher_p50_ms=head["teacher_p50_ms"],
        parameters=row["parameters"],
        bytes=row["bytes"],
        verdict=report["verdict"]["word"],
        teacher_gain=control["gain"] if control else None,
        worth=control["sentence"] if control else "",
    )


def _images(reports: Sequence[dict[str, Any]]) -> str:
    """How the held-out images differ; by the digest of the whole data where a report lacks the images' own."""
    key = "images_digest" if all(report["images_digest"] for report in reports) else ""
    digests = [report[key] if key else report["data"]["digest"] for report in reports]
    same = len(set(digests)) == 1 and len({report["data"]["val_images"] for report in reports}) == 1
    return "" if same else f"the held-out images differ ({_groups(digests)})"


def _machines(reports: Sequence[dict[str, Any]]) -> str:
    """How the hardware differs; empty where it is known to be the same."""
    unknown = [str(number) for number, report in enumerate(reports, 1) if report["hardware"] is None]
    if unknown:
        return f"the hardware of {' and '.join(unknown)} is not recorded"
    found = [report["hardware"] for report in reports]
    differing = [key for key in found[0] if len({str(one[key]) for one in found}) > 1]
    told = "; ".join(f"{key}: {', '.join(str(one[key] or 'none') for one in found)}" for key in differing)
    return f"the hardware differs ({told})" if differing else ""


def _providers(reports: Sequence[dict[str, Any]]) -> str:
    """How what the deployed models ran on differs; empty where it does not."""
    found = [next(row for row in report["models"] if row["deployed"])["provider"] for report in reports]
    told = ", ".join(name or "not recorded" for name in found)
    return f"the execution providers differ ({told})" if len(set(found)) > 1 else ""


def _teachers(reports: Sequence[dict[str, Any]]) -> str:
    """How the teachers differ in what decides their speed; their weights may differ."""
    costs = [(report["training"]["teacher"]["arch"], report["artifacts"]["teacher"]["cost"]) for report in reports]
    if all(cost == costs[0] for cost in costs):
        return ""
    told = ", ".join(f"{arch} of {cost['parameters'] / 1e6:.2f} M parameters" for arch, cost in costs)
    return f"the teachers differ ({told})"


def _groups(keys: Sequence[str]) -> str:
    """Which runs belong together: ``1 and 3; 2``."""
    members: dict[str, list[str]] = {}
    for number, key in enumerate(keys, 1):
        members.setdefault(key, []).append(str(number))
    return "; ".join(" and ".join(group) for group in members.values())
