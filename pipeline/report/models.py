"""The report's central table: one row for each model in each runtime it was measured in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

from vitcompress.core.artifact_records import (
    AccuracyRow,
    BundleRecord,
    ExportRecord,
    LatencyRow,
    MemoryRow,
    OnnxArtifact,
    Precision,
    ThroughputRow,
    VerifyRecord,
)
from vitcompress.core.records import Cost, DistillRecord, FileRef, FoldRecord, TeacherRecord
from vitcompress.exporters.latency import TAIL_SAMPLES
from vitcompress.stages.gates.registry import NO_TEACHER_ENGINE

MEGABYTE = 1_000_000
"""Bytes; the unit of the size gate and of every size shown."""

_RUNTIME_WORDS = {
    "torch": "torch",
    "onnx": "ONNX",
    "tensorrt": "TensorRT engine",
    "tensorrt-rtx": "TensorRT-RTX engine",
}
_RUNTIMES = tuple(_RUNTIME_WORDS)
_PRECISIONS = get_args(Precision)
_NO_MEMORY = {"torch": "a graph in torch shares its process with everything else that this program is"}
"""Why no artifact of a runtime has a memory of its own."""
_PROVIDER_WORDS = {"CPUExecutionProvider": "CPU", "CUDAExecutionProvider": "GPU"}


def quantity(
    value: float | None, low: float | None = None, high: float | None = None, reason: str = ""
) -> dict[str, Any]:
    """A number with its interval, or null with the reason; a NaN or an infinity is no number."""
    numbers = [number for number in (value, low, high) if number is not None]
    if value is not None and all(math.isfinite(number) for number in numbers):
        return {"value": value, "low": low, "high": high, "reason": ""}
    if value is not None:
        reason = "the measured value is not a finite number"
    return {"value": None, "low": None, "high": None, "reason": reason or "not measured in this run"}


@dataclass(frozen=True)
class Artifact:
    """One model in one runtime and precision: a row of the table."""

    model: str
    runtime: str
    precision: str

    def place(self, deployed: str) -> tuple[bool, int, bool, str, int]:
        """Where it stands: the teacher first; then by runtime, the deployed graph before others, wide before narrow."""
        order = _RUNTIMES.index(self.runtime) if self.runtime in _RUNTIMES else len(_RUNTIMES)
        width = _PRECISIONS.index(self.precision)
        return self.model != "teacher", order, self.model != deployed, self.model, width

    def label(self, provider: str) -> str:
        """What it is called: ``student lift-folded fp16, ONNX CPU``."""
        who = "teacher" if self.model == "teacher" else f"student {self.model}"
        return (
            f"{who}{'' if self.precision == 'fp32' else f' {self.precision}'}, {_runtime_words(self.runtime, provider)}"
        )


def model_rows(
    teacher: TeacherRecord,
    distill: DistillRecord,
    fold: FoldRecord,
    export: ExportRecord,
    verify: VerifyRecord,
    bundle: BundleRecord,
) -> list[dict[str, Any]]:
    """One row per (model, runtime, precision): teacher, student in torch, deployed ONNX, other graphs, engines.

    Besides all that a row of ``verify`` names, there is always a row for the teacher's and the deployed student's ONNX
    file, and for every engine that was asked for, built or not, measured or not.
    """
    measured: tuple[AccuracyRow | LatencyRow, ...] = (*verify.accuracy, *verify.latency)
    providers = {_of(row): row.provider for row in measured}
    accuracy = {_of(row): row for row in verify.accuracy}
    latency = {(_of(row), row.batch): row for row in verify.latency}
    engines = {Artifact(export.deployed, one.flavour, one.precision): one.reason for one in export.engines}
    deployed = Artifact(export.deployed, "onnx", bundle.onnx)
    artifacts = {*providers, *engines, Artifact("teacher", "onnx", "fp32"), deployed}
    batches = sorted({1, *(row.batch for row in verify.latency)})
    throughput: dict[Artifact, dict[int, ThroughputRow]] = {}
    for given in sorted(verify.throughput, key=lambda row: row.batch):
        throughput.setdefault(_of(given), {})[given.batch] = given
    memory = {_of(row): row for row in sorted(verify.memory, key=lambda row: -row.batch)}  # the smallest batch stays
    rows = []
    for one in sorted(artifacts, key=lambda one: one.place(export.deployed)):
        absent = engines.get(one, "")
        cost, file = _cost_and_file(one, teacher, distill, fold, export)
        rows.append(
            {
                "label": one.label(providers.get(one, "")) + (" (deployed)" if one == deployed else ""),
                "model": one.model,
                "runtime": one.runtime,
                "precision": one.precision,
                "provider": providers.get(one, ""),
                "deployed": one == deployed,
                **_accuracy(accuracy.get(one), absent, is_teacher=one.model == "teacher"),
                "latency": {str(batch): _latency(latency.get((one, batch)), absent) for batch in batches},
                "throughput": {str(batch): _throughput(row) for batch, row in throughput.get(one, {}).items()},
                "memory": _memory(memory.get(one), absent or _NO_MEMORY.get(one.runtime, "")),
                "parameters": None if cost is None else cost.parameters,
                "macs": None if cost is None else cost.macs,
                "bytes": None if file is None else file.bytes,
                "cost_reason": "" if cost else f"no cost is recorded for '{one.model}'",
                "bytes_reason": "" if file else absent or f"no file is recorded for '{one.model}' in {one.runtime}",
            }
        )
    return rows


def _of(row: AccuracyRow | LatencyRow | ThroughputRow | MemoryRow) -> Artifact:
    return Artifact(row.model, row.runtime, row.precision)


def _runtime_words(runtime: str, provider: str) -> str:
    """A runtime as people call it, with what it ran on where there is a choice: ``ONNX CPU``, ``ONNX GPU``."""
    return " ".join(filter(None, [_RUNTIME_WORDS.get(runtime, runtime), _PROVIDER_WORDS.get(provider, provider)]))


def _cost_and_file(
    one: Artifact, teacher: TeacherRecord, distill: DistillRecord, fold: FoldRecord, export: ExportRecord
) -> tuple[Cost | None, FileRef | OnnxArtifact | None]:
    """What a model costs and what it is loaded from in its runtime; None where no record says."""
    student = {str(graph): artifact for graph, artifact in export.student.items()}
    fp32 = export.teacher if one.model == "teacher" else student.get(one.model)
    if one.runtime == "onnx":
        reduced = {str(precision): artifact for precision, artifact in export.reduced.items()}
        return (fp32.cost if fp32 else None), fp32 if one.precision == "fp32" else reduced.get(one.precision)
    if one.runtime != "torch":
        engines = {(str(engine.flavour), str(engine.precision)): engine.file for engine in export.engines}
        return (fp32.cost if fp32 else None), engines.get((one.runtime, one.precision))
    if one.model == "teacher":
        return teacher.cost, teacher.weights
    costs = {str(graph): cost for graph, cost in fold.costs.items()}
    files = {str(graph): ref for graph, ref in fold.graphs.items()}
    trained = distill.weights if one.model == distill.model.graph else None
    return costs.get(one.model), files.get(one.model, trained)


def _accuracy(row: AccuracyRow | None, absent: str, *, is_teacher: bool) -> dict[str, Any]:
    """Accuracy, agreement and calibration as quantities; the teacher in torch is what others are compared with."""
    if row is None:
        nothing = quantity(None, reason=absent)
        return {**dict.fromkeys(("top1", "top5", "drop", "agreement", "ece"), nothing), "images": None}
    reference = "this is the reference" if is_teacher else "no drop was computed"
    itself = "others are compared with this one" if row.runtime == "torch" else ""
    few = "no top-5 (five or fewer classes, or not computed)"
    return {
        "top1": quantity(row.top1, row.top1_low, row.top1_high, row.reason),
        "top5": quantity(row.top5, reason=row.reason or few),
        "drop": quantity(row.drop, row.drop_low, row.drop_high, row.reason or reference),
        "agreement": quantity(row.agreement, row.agreement_low, row.agreement_high, row.reason or itself),
        "ece": quantity(row.ece, reason=row.reason),
        "images": row.images,
    }


def _latency(row: LatencyRow | None, absent: str) -> dict[str, Any]:
    """Median, tails and speed-up at one batch size, as quantities."""
    if row is None:
        nothing = quantity(None, reason=absent)
        return {"p50_ms": nothing, "p90_ms": nothing, "p99_ms": nothing, "speedup": nothing, "samples": 0}
    no_ratio = row.reason or "no teacher was measured in this runtime"
    if row.runtime not in ("torch", "onnx"):
        no_ratio = NO_TEACHER_ENGINE
    few = f"fewer than {TAIL_SAMPLES} samples"
    return {
        "p50_ms": quantity(row.p50_ms, row.p50_low, row.p50_high, row.reason),
        "p90_ms": quantity(row.p90_ms, reason=row.reason),
        "p99_ms": quantity(row.p99_ms, reason=row.reason or few),
        "speedup": quantity(row.speedup, row.speedup_low, row.speedup_high, no_ratio),
        "samples": row.samples,
    }


def _throughput(row: ThroughputRow) -> dict[str, Any]:
    """Images a second."""
    return quantity(row.images_per_second, row.low, row.high, row.reason)


def _memory(row: MemoryRow | None, absent: str) -> dict[str, Any]:
    """Most resident memory, bytes."""
    if row is None:
        return quantity(None, reason=absent)
    return quantity(row.peak_rss_bytes, reason=row.reason)
