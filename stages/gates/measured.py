"""What a run measured of one artifact, as the judge takes it."""

from __future__ import annotations

from typing import get_args

from vitcompress.core.artifact_records import (
    AccuracyRow,
    EngineArtifact,
    ExportRecord,
    LatencyRow,
    OnnxArtifact,
    Precision,
    Runtime,
    VerifyRecord,
)
from vitcompress.core.record import FileRef
from vitcompress.stages.gates.config import NO_TEACHER_ENGINE
from vitcompress.stages.gates.judge import Measurement, Quantity

_MEGABYTE = 1_000_000


def measurements(
    export: ExportRecord, verify: VerifyRecord, runtime: Runtime, precision: Precision
) -> list[Measurement]:
    """Everything known about the deployed graph in one runtime and precision; what is missing has its reason."""
    accuracy = verify.accuracy_of(export.deployed, runtime, precision)
    latency = verify.latency_of(export.deployed, runtime, precision)
    if accuracy is None or latency is None:
        return nothing(_why_absent(export, runtime, precision))
    file = _file(export, runtime, precision)
    size = (
        Measurement("size_mb", file.bytes / _MEGABYTE)
        if file
        else Measurement("size_mb", None, reason="no file was recorded")
    )
    return [*_of_accuracy(accuracy), *_of_latency(latency), size]


def nothing(why: str) -> list[Measurement]:
    """Every quantity, unmeasured for the same reason."""
    return [Measurement(quantity, None, reason=why) for quantity in get_args(Quantity)]


def _file(export: ExportRecord, runtime: Runtime, precision: Precision) -> OnnxArtifact | FileRef | None:
    if runtime == "onnx":
        return export.onnx(precision)
    engine = export.engine(runtime, precision)
    return engine.file if engine else None


def _why_absent(export: ExportRecord, runtime: Runtime, precision: Precision) -> str:
    """Why a run has no such artifact."""
    engine: EngineArtifact | None = export.engine(runtime, precision)
    if engine is not None and engine.reason:
        return engine.reason
    if precision in export.missing:
        return export.missing[precision]
    asked = "export.precision decides" if runtime == "onnx" else "export.target and export.precision decide"
    return f"this run made no {runtime} artifact in {precision}; {asked} that"


def _of_accuracy(row: AccuracyRow) -> list[Measurement]:
    older = "its answers were not compared with torch's; `compress verify RUN` does that"
    return [
        Measurement("drop", row.drop, row.drop_low, row.drop_high, row.reason),
        Measurement("top1", row.top1, row.top1_low, row.top1_high, row.reason),
        Measurement("agreement", row.agreement, row.agreement_low, row.agreement_high, row.reason or older),
    ]


def _of_latency(row: LatencyRow) -> list[Measurement]:
    """Latency and speed-up."""
    in_onnx = row.reason or "no teacher was measured in this runtime"
    why = in_onnx if row.runtime == "onnx" else NO_TEACHER_ENGINE
    return [
        Measurement("latency_ms", row.p50_ms, row.p50_low, row.p50_high, row.reason),
        Measurement("speedup", row.speedup, row.speedup_low, row.speedup_high, why),
    ]
