"""The imagined runs of ``sample_reports`` with everything measured that schema 3 can hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sample_reports import report_of

from vitcompress.core.artifact_records import (
    AccuracyRow,
    Flip,
    FlipTable,
    Hardware,
    LatencyRow,
    MemoryRow,
    ThroughputRow,
)
from vitcompress.pipeline.report.document import Records

CLASS_IMAGES = (100,) * 10


def right_of(row: AccuracyRow) -> tuple[int, ...]:
    """The teacher knows every class alike; other models lose ``e`` most, then ``b``, then ``a``."""
    right = [92, 92, 92, 92, 92, 92, 92, 92, 92, 95]
    if row.model != "teacher":
        right = [91, 88, 92, 92, 82, 92, 92, 92, 95, 95]
    return tuple(right)


def measured(records: Records) -> Records:
    """The run with agreement, calibration, classes, throughput, memory, flips and hardware."""
    verify, deployed = records.verify, records.export.deployed
    ran = [row for row in verify.latency if row.p50_ms is not None]
    return replace(
        records,
        verify=verify.model_copy(
            update={
                "accuracy": tuple(_accuracy(row) for row in verify.accuracy),
                "latency": tuple(_latency(row) for row in verify.latency),
                "throughput": tuple(_throughput(row) for row in ran),
                "memory": tuple(_memory(row) for row in ran if row.batch == 1),
                "flips": (
                    FlipTable(model=deployed, runtime="onnx", lost=31, won=18, other=7, shown=(flip("c/1.png"),)),
                    FlipTable(model=deployed, runtime="onnx", precision="fp16", lost=32, won=18, other=7),
                ),
                "hardware": Hardware(processor="A CPU", architecture="x86_64", cores=2, threads=2),
                "images_digest": "2" * 64,
                "class_images": CLASS_IMAGES,
            }
        ),
    )


def flip(image: str) -> Flip:
    return Flip(image=image, label=2, teacher=2, student=4, teacher_confidence=0.9, student_confidence=0.8)


def _accuracy(row: AccuracyRow) -> AccuracyRow:
    if row.top1 is None:
        return row
    agreement = {} if row.runtime == "torch" else {"agreement": 99.7, "agreement_low": 99.1, "agreement_high": 99.9}
    changes: dict[str, Any] = {"ece": 3.25, "class_right": right_of(row), "right": "AAA=", **agreement}
    return row.model_copy(update=changes | {"top1_low": row.top1 - 1.7, "top1_high": row.top1 + 1.7})


def _latency(row: LatencyRow) -> LatencyRow:
    if row.p50_ms is None:
        return row
    sessions = tuple(row.p50_ms * (1 + 0.01 * (index - 1)) for index in range(3))
    quantiles = tuple(row.p50_ms * (0.9 + 0.01 * index) for index in range(21))
    ends = {"p50_low": row.p50_ms * 0.98, "p50_high": row.p50_ms * 1.02}
    return row.model_copy(update={"session_p50_ms": sessions, "quantiles_ms": quantiles, **ends})


def _throughput(row: LatencyRow) -> ThroughputRow:
    assert row.p50_ms is not None
    return ThroughputRow(
        model=row.model,
        runtime=row.runtime,
        precision=row.precision,
        batch=row.batch,
        images_per_second=1000 * row.batch / row.p50_ms,
        samples=43,
    )


def _memory(row: LatencyRow) -> MemoryRow:
    place: dict[str, Any] = {"model": row.model, "runtime": row.runtime, "precision": row.precision}
    return MemoryRow(**place, batch=1, peak_rss_bytes=151_000_000, empty_rss_bytes=60_000_000)


def measured_report(records: Records, **changed: Any) -> dict[str, Any]:
    return report_of(measured(records), **changed)
