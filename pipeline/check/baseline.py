"""The baseline: what a later run is compared with, in a file that is small enough to be committed and reviewed."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from vitcompress.core.bits import unpacked
from vitcompress.core.errors import UsageError
from vitcompress.core.files import read_object
from vitcompress.core.measured_records import AccuracyRow, Hardware, LatencyRow
from vitcompress.core.record import Record
from vitcompress.core.rundir import utc_now
from vitcompress.pipeline.report.shape import ModelRow, Report
from vitcompress.stages.gates.names import name_of

KIND: Final = "compress-baseline"
SCHEMA_VERSION: Final = 1
ROUNDING = 1e-5
"""Points by which a top-1 may differ from its own answers."""
DIGITS = 6
"""Significant digits of a time that are kept, far beyond what any clock tells apart; decimals of a top-1."""

Milliseconds = Annotated[float, Field(ge=1e-3, le=1e6)]
"""From a microsecond to a quarter of an hour: what lies beyond was never measured."""
Sessions = Annotated[tuple[Milliseconds, ...], Field(min_length=1)]
BatchSize = Annotated[str, Field(pattern="^[1-9][0-9]*$")]


class Made(Record):
    """Where a baseline comes from."""

    at: str
    """Time in UTC, ISO 8601."""
    version: str
    """Of compress, that measured the run."""
    command: str
    """That made the run."""


class Models(Record):
    """Which networks were compared; timm names."""

    teacher: str
    student: str
    strategy: str
    graph: str
    """The deployed shape of the student."""


class Images(Record):
    """Which held-out images were answered."""

    digest: str = Field(min_length=1)
    count: int = Field(gt=0)
    classes: str
    """SHA-256 over the class names in order."""


class Measured(Record):
    """What was measured of one model in one runtime."""

    top1: float | None = Field(None, ge=0, le=100)
    """Percent; None when unmeasured."""
    right: str = ""
    """Whether each image was classified rightly, as ``core.bits`` packs it; empty when unmeasured, and where the score
    is not the share of such images (mAP)."""
    ends: tuple[float, float] | None = None
    """Ends of the 95 % interval of such a score."""
    bytes: int | None = Field(None, gt=0)
    """Of all its files; None when not recorded."""
    provider: str = ""
    """ONNX Runtime's execution provider; empty for other runtimes."""
    disturbed: str = ""
    """That the GPU was throttled or shared while latencies at batch 1 were measured; absent when it was not."""
    session_p50_ms: dict[BatchSize, Sessions] = Field(default_factory=dict)
    """Median of each session by batch size, milliseconds; entry s of the teacher's and an artifact's in the same
    runtime are of the same session."""

    def answers(self, count: int) -> NDArray[np.bool_] | None:
        """Return whether each of ``count`` images was classified rightly, bool ``[count]``; None when unmeasured."""
        return unpacked(self.right, count) if self.right else None


class Baseline(Record):
    """A run, as far as a later one is compared with it."""

    kind: Literal["compress-baseline"] = KIND
    schema_version: Literal[1] = SCHEMA_VERSION
    made: Made
    models: Models
    images: Images
    score: str = "top-1"
    """What ``top1`` is, in words."""
    hardware: Hardware | None
    disturbance: float | None = Field(None, ge=0, le=1)
    """Share of the CPUs' time that other processes took while latencies were measured; None when unknown."""
    recommended: dict[str, str | None]
    """Name of the artifact of each kind, ``onnx`` and ``engine``, that the bundle recommends."""
    teacher: dict[str, Measured]
    """By runtime in fp32, else as artifacts are named: ``onnx``, ``tensorrt-rtx-fp16``."""
    artifacts: dict[str, Measured]
    """Of the deployed graph, by name."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        for name, one in self.measured().items():
            answers = one.answers(self.images.count)
            right = None if answers is None else 100 * float(answers.mean())
            if right is not None and (one.top1 is None or abs(right - one.top1) > ROUNDING):
                raise ValueError(f"{name}: top1 is {one.top1}, its answers say {right:.6g}")
        return self

    def measured(self) -> dict[str, Measured]:
        """Return what was measured of each model: ``teacher torch``, ``artifact onnx-fp32`` and so on, by name."""
        models = {f"teacher {name}": one for name, one in self.teacher.items()}
        return models | {f"artifact {name}": one for name, one in sorted(self.artifacts.items())}


def teacher_name(runtime: str, precision: str) -> str:
    """Return the name of a teacher's artifact in a baseline."""
    return runtime if precision == "fp32" else name_of(runtime, precision)


def first_problem(error: ValueError) -> str:
    """Return what is wrong with a file and where, in one line of at most 160 characters."""
    if not isinstance(error, ValidationError):
        return str(error)[:160]
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    said = first["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    return f"{f'{place}: ' if place else ''}{said}"[:160]


def baseline_of(report: Report, file: Path) -> Baseline:
    """Return the run of a report, read from ``file``, as a baseline; a UsageError is raised for a damaged report."""
    graph, bundle, training = report.artifacts.deployed, report.artifacts.bundle, report.training
    try:
        teacher = {
            teacher_name(row.runtime, row.precision): _measured(report, row)
            for row in report.accuracy
            if row.model == "teacher"
        }
        artifacts = {
            name_of(row.runtime, row.precision): _measured(report, row)
            for row in report.accuracy
            if row.model == graph and row.runtime != "torch"
        }
        return Baseline(
            made=Made(at=utc_now(), version=str(report.environment.get("compress")), command=report.command),
            models=Models(
                teacher=training.teacher.arch,
                student=training.student.arch,
                strategy=training.student.strategy,
                graph=graph,
            ),
            images=Images(
                digest=report.images_digest,
                count=max((row.images for row in report.accuracy), default=0),
                classes=hashlib.sha256(json.dumps(report.class_names).encode()).hexdigest(),
            ),
            score=report.score.label,
            hardware=report.hardware,
            disturbance=None if report.disturbance is None else round(report.disturbance, 2),
            recommended={
                "onnx": name_of("onnx", bundle.onnx),
                "engine": name_of(*bundle.engine) if bundle.engine else None,
            },
            teacher={name: one for name, one in teacher.items() if one.right or one.ends or one.session_p50_ms},
            artifacts={name: one for name, one in artifacts.items() if one.right or one.ends or one.session_p50_ms},
        )
    except ValueError as error:  # a ValidationError is one
        raise UsageError(
            f"'{file}' is damaged ({first_problem(error)}); run `compress verify RUN` to write it again."
        ) from error


def _measured(report: Report, answered: AccuracyRow) -> Measured:
    """Return what a report measured of the model in the runtime and precision of a row."""

    def same(row: AccuracyRow | LatencyRow | ModelRow) -> bool:
        return (row.model, row.runtime, row.precision) == (answered.model, answered.runtime, answered.precision)

    ends = answered.top1_low, answered.top1_high
    whole = report.task == "multilabel" and None not in ends  # mAP is no share of images
    return Measured(
        top1=round(answered.top1, DIGITS) if (answered.right or whole) and answered.top1 is not None else None,
        right="" if whole else answered.right,
        ends=ends if whole else None,  # type: ignore[arg-type]  # numbers then
        bytes=next((row.bytes for row in report.models if same(row) and row.model != "teacher"), None),
        provider=answered.provider,
        disturbed=next((row.disturbed for row in filter(same, report.latency) if row.batch == 1), ""),
        session_p50_ms={
            str(row.batch): tuple(float(f"{p50:.{DIGITS}g}") for p50 in row.session_p50_ms)
            for row in filter(same, report.latency)
            if row.session_p50_ms
        },
    )


def load_baseline(path: Path) -> Baseline:
    """Return the baseline in a file; a UsageError is raised where that is missing, damaged or something else."""
    make = f"`compress check RUN --baseline {path} --update`"
    remedy = f"restore it from version control, or remove it and make it anew with {make}"
    if not path.exists():
        raise UsageError(f"baseline '{path}' does not exist; make it of a run you trust with {make}, and commit it.")
    content = read_object(path, "baseline", remedy)
    kind, version = content.get("kind"), content.get("schema_version")
    if kind != KIND:
        raise UsageError(f"'{path}' is no baseline; give a file that {make} made.")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"baseline '{path}' has schema_version {json.dumps(version)[:20]}, this version reads {SCHEMA_VERSION}; "
            f"update compress, or remove it and make it anew with {make}."
        )
    try:
        # Through JSON: strict types, but lists where there are tuples.
        return Baseline.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise UsageError(f"baseline '{path}' is damaged ({first_problem(error)}); {remedy}.") from error


def text_of(baseline: Baseline) -> str:
    """Return a baseline as JSON: keys sorted, the times of a batch size on one line, so that a change can be read."""
    content = baseline.model_dump(mode="json", exclude={"score"} if baseline.score == "top-1" else None)
    for one in (*content["teacher"].values(), *content["artifacts"].values()):
        for name in ("disturbed", "ends"):  # an earlier version does not know them
            if not one[name]:
                del one[name]
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[\n\s+([-+.,\deE\s]+?)\n\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"
