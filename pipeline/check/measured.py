"""What a report measured, in the shape of a baseline: both sides of a comparison are then the same thing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vitcompress.core.artifact_records import AccuracyRow, LatencyRow
from vitcompress.core.errors import UsageError
from vitcompress.core.rundir import utc_now
from vitcompress.pipeline.check.baseline import Baseline, Images, Made, Measured, Models, first_problem
from vitcompress.pipeline.report.shape import ModelRow, Report
from vitcompress.stages.gates.names import name_of

DIGITS = 6
"""Significant digits of a time that are kept, far beyond what any clock tells apart; decimals of a top-1."""


def baseline_of(report: Report, file: Path) -> Baseline:
    """Return the run of a report as a baseline, made now.

    Args:
        report: of ``read_report``.
        file: it came from, for the messages.

    Raises:
        UsageError: the report lacks what is compared, for an earlier version wrote it, or it contradicts itself.
    """
    if not report.images_digest:
        raise UsageError(
            f"'{file}' was made by an earlier version of compress, which kept no answers image by image and no "
            "sessions of its timing; run `compress verify RUN` again."
        )
    graph, bundle, training = report.artifacts.deployed, report.artifacts.bundle, report.training
    try:
        teacher = {row.runtime: _measured(report, row) for row in report.accuracy if row.model == "teacher"}
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
            hardware=report.hardware,
            disturbance=None if report.disturbance is None else round(report.disturbance, 2),
            recommended={
                "onnx": name_of("onnx", bundle.onnx),
                "engine": name_of(*bundle.engine) if bundle.engine else None,
            },
            teacher={runtime: one for runtime, one in teacher.items() if one.right or one.session_p50_ms},
            artifacts={name: one for name, one in artifacts.items() if one.right or one.session_p50_ms},
        )
    except ValueError as error:  # a ValidationError is one
        raise UsageError(
            f"'{file}' is damaged ({first_problem(error)}); run `compress verify RUN` to write it again."
        ) from error


def _measured(report: Report, answered: AccuracyRow) -> Measured:
    """Return what a report measured of the model in the runtime and precision of a row."""

    def same(row: AccuracyRow | LatencyRow | ModelRow) -> bool:
        return (row.model, row.runtime, row.precision) == (answered.model, answered.runtime, answered.precision)

    return Measured(
        top1=round(answered.top1, DIGITS) if answered.right and answered.top1 is not None else None,
        right=answered.right,
        bytes=next((row.bytes for row in report.models if same(row) and row.model != "teacher"), None),
        provider=answered.provider,
        session_p50_ms={
            str(row.batch): tuple(float(f"{p50:.{DIGITS}g}") for p50 in row.session_p50_ms)
            for row in filter(same, report.latency)
            if row.session_p50_ms
        },
    )
