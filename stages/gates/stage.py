"""Judge the deployed student's measurements against the limits."""

from __future__ import annotations

from dataclasses import dataclass

from core.artifact_records import (
    AccuracyRow,
    BundleRecord,
    ExportRecord,
    GatesRecord,
    LatencyRow,
    Precision,
    Runtime,
    VerifyRecord,
)
from core.context import Context
from stages.gates.config import NO_TEACHER_ENGINE, GatesConfig
from stages.gates.judge import Measurement, judge, passed

_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    export: ExportRecord
    verify: VerifyRecord
    bundle: BundleRecord


def run(config: GatesConfig, inputs: Inputs, context: Context) -> GatesRecord:
    """One row a limit and artifact, and whether the run passes; judged are the artifacts that the bundle recommends.

    A run that lacks an artifact asked for by name does not pass, whatever the limits say.
    """
    onnx = _measurements(inputs, "onnx", "onnx", inputs.bundle.onnx)
    engine = inputs.bundle.engine
    rows = judge(config, [*onnx, *(_measurements(inputs, "engine", *engine) if engine else _no_engine(inputs))])
    return GatesRecord(rows=rows, passed=passed(rows) and not inputs.export.not_made)


def _no_engine(inputs: Inputs) -> list[Measurement]:
    why = "; ".join(dict.fromkeys(one.reason for one in inputs.export.engines)) or inputs.bundle.engine_why
    return [
        Measurement("engine", quantity, None, reason=why)
        for quantity in ("drop", "top1", "speedup", "latency_ms", "size_mb")
    ]


def _measurements(inputs: Inputs, artifact: str, runtime: Runtime, precision: Precision) -> list[Measurement]:
    """What is known about the deployed graph in one runtime and precision, as ``artifact``."""
    export, verify = inputs.export, inputs.verify
    accuracy = verify.accuracy_of(export.deployed, runtime, precision)
    latency = verify.latency_of(export.deployed, runtime, precision)
    assert accuracy is not None  # noqa: S101 - verification has rows of every artifact, measured or not
    assert latency is not None  # noqa: S101 - likewise, at batch 1
    engine = export.engine(runtime, precision)
    made = export.onnx(precision) if runtime == "onnx" else engine.file if engine else None
    size = (
        Measurement(artifact, "size_mb", made.bytes / _MEGABYTE)
        if made
        else Measurement(artifact, "size_mb", None, reason="no file was recorded")
    )
    return [*_of_accuracy(artifact, accuracy), *_of_latency(artifact, latency), size]


def _of_accuracy(artifact: str, row: AccuracyRow) -> list[Measurement]:
    return [
        Measurement(artifact, "drop", row.drop, row.drop_low, row.drop_high, row.reason),
        Measurement(artifact, "top1", row.top1, row.top1_low, row.top1_high, row.reason),
    ]


def _of_latency(artifact: str, row: LatencyRow) -> list[Measurement]:
    """Latency and speed-up."""
    why = NO_TEACHER_ENGINE if artifact == "engine" else row.reason or "no teacher was measured in this runtime"
    return [
        Measurement(artifact, "latency_ms", row.p50_ms, row.p50_low, row.p50_high, row.reason),
        Measurement(artifact, "speedup", row.speedup, row.speedup_low, row.speedup_high, why),
    ]
