"""What a report measured, in the shape of a baseline: both sides of a comparison are then the same thing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from vitcompress.core.artifact_records import AccuracyRow, Hardware, LatencyRow
from vitcompress.core.errors import UsageError
from vitcompress.core.record import Record
from vitcompress.core.rundir import utc_now
from vitcompress.pipeline.check.baseline import Baseline, Images, Made, Measured, Models
from vitcompress.stages.gates.names import RUNTIMES, name_of

Row = TypeVar("Row", bound=Record)
DIGITS = 6
"""Significant digits of a time that are kept, far beyond what any clock tells apart; decimals of a top-1."""


def baseline_of(report: dict[str, Any], file: Path) -> Baseline:
    """The run of a report as a baseline, made now.

    Args:
        report: of ``load_report``.
        file: it came from, for the messages.

    Raises:
        UsageError: the report lacks what is compared, for an earlier version wrote it, or it is damaged.
    """
    if not report.get("images_digest"):
        raise UsageError(
            f"'{file}' was made by an earlier version of compress, which kept no answers image by image and no "
            "sessions of its timing; run `compress verify RUN` again."
        )
    try:
        return _baseline(report)
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # a ValidationError is a ValueError
        raise UsageError(
            f"'{file}' is damaged ({_told(error)}); run `compress verify RUN` to write it again."
        ) from error


def _told(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{f'{place}: ' if place else ''}{first['msg'].removeprefix('Value error, ')}"[:160]
    return f"no {error}" if isinstance(error, KeyError) else str(error)[:160]


def _baseline(report: dict[str, Any]) -> Baseline:
    accuracy, latency = _rows(AccuracyRow, report["accuracy"]), _rows(LatencyRow, report["latency"])
    artifacts, training = report["artifacts"], report["training"]
    graph, bundle = artifacts["deployed"], artifacts["bundle"]
    sizes = {(row["model"], row["runtime"], row["precision"]): row["bytes"] for row in report["models"]}

    def measured(model: str, runtime: str, precision: str) -> Measured:
        own = (model, runtime, precision)
        answered = next((row for row in accuracy if (row.model, row.runtime, row.precision) == own), None)
        timed = [row for row in latency if (row.model, row.runtime, row.precision) == own and row.session_p50_ms]
        return Measured(
            top1=round(answered.top1, DIGITS) if answered and answered.right and answered.top1 is not None else None,
            right=answered.right if answered else "",
            bytes=sizes.get(own) if model != "teacher" else None,
            provider=answered.provider if answered else "",
            session_p50_ms={
                str(row.batch): tuple(float(f"{p50:.{DIGITS}g}") for p50 in row.session_p50_ms) for row in timed
            },
        )

    teacher = {runtime: measured("teacher", runtime, "fp32") for runtime in ("torch", *RUNTIMES)}
    found = {
        name_of(row.runtime, row.precision): measured(graph, row.runtime, row.precision)
        for row in accuracy
        if row.model == graph and row.runtime != "torch"
    }
    engine = bundle["engine"]
    return Baseline(
        made=Made(at=utc_now(), version=str(report["environment"]["compress"]), command=report["command"]),
        models=Models(
            teacher=training["teacher"]["arch"],
            student=training["student"]["arch"],
            strategy=training["student"]["strategy"],
            graph=graph,
        ),
        images=Images(
            digest=report["images_digest"],
            count=max((row.images for row in accuracy), default=0),
            classes=hashlib.sha256(json.dumps(report["class_names"]).encode()).hexdigest(),
        ),
        hardware=Hardware.model_validate_json(json.dumps(report["hardware"])) if report["hardware"] else None,
        disturbance=None if (share := report["disturbance"]) is None else round(share, 2),
        recommended={"onnx": name_of("onnx", bundle["onnx"]), "engine": name_of(*engine) if engine else None},
        teacher={runtime: one for runtime, one in teacher.items() if _is_measured(one)},
        artifacts={name: one for name, one in found.items() if _is_measured(one)},
    )


def _rows(kind: type[Row], given: Sequence[Any]) -> list[Row]:
    # Through JSON: strict types, but lists where the records have tuples.
    return [kind.model_validate_json(json.dumps(row)) for row in given]


def _is_measured(one: Measured) -> bool:
    return bool(one.right or one.session_p50_ms)
