"""Judge the deployed student's measurements against the limits."""

from __future__ import annotations

from dataclasses import dataclass

from core.artifact_records import AccuracyRow, ExportRecord, GatesRecord, LatencyRow, VerifyRecord
from core.context import Context
from stages.gates.config import NO_TEACHER_ENGINE, GatesConfig
from stages.gates.judge import Measurement, judge, passed

_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    export: ExportRecord
    verify: VerifyRecord


def run(config: GatesConfig, inputs: Inputs, context: Context) -> GatesRecord:
    """One row a limit and artifact, and whether the run passes."""
    rows = judge(config, [*_measurements(inputs, "onnx"), *_measurements(inputs, "engine")])
    return GatesRecord(rows=rows, passed=passed(rows))


def _measurements(inputs: Inputs, runtime: str) -> list[Measurement]:
    """What is known about the deployed graph in one runtime."""
    export, verify = inputs.export, inputs.verify
    if runtime == "engine" and export.engine.status == "off":
        why = "no engine was asked for (export.engine: none)"
        return [
            Measurement(runtime, quantity, None, reason=why)
            for quantity in ("drop", "top1", "speedup", "latency_ms", "size_mb")
        ]
    accuracy = next(row for row in verify.accuracy if (row.model, row.runtime) == (export.deployed, runtime))
    latency = next(
        row for row in verify.latency if (row.model, row.runtime, row.batch) == (export.deployed, runtime, 1)
    )
    made = export.student[export.deployed] if runtime == "onnx" else export.engine.file
    size = (
        Measurement(runtime, "size_mb", made.bytes / _MEGABYTE)
        if made
        else Measurement(runtime, "size_mb", None, reason=export.engine.reason)
    )
    return [*_of_accuracy(runtime, accuracy), *_of_latency(runtime, latency), size]


def _of_accuracy(runtime: str, row: AccuracyRow) -> list[Measurement]:
    return [
        Measurement(runtime, "drop", row.drop, row.drop_low, row.drop_high, row.reason),
        Measurement(runtime, "top1", row.top1, row.top1_low, row.top1_high, row.reason),
    ]


def _of_latency(runtime: str, row: LatencyRow) -> list[Measurement]:
    """Latency and speed-up."""
    why = NO_TEACHER_ENGINE if runtime == "engine" else row.reason or "no teacher was measured in this runtime"
    return [
        Measurement(runtime, "latency_ms", row.p50_ms, row.p50_low, row.p50_high, row.reason),
        Measurement(runtime, "speedup", row.speedup, row.speedup_low, row.speedup_high, why),
    ]
