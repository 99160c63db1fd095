"""The report's central table: one row for each model in each runtime it was measured in."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, get_args

from vitcompress.core.artifact_records import AccuracyRow, LatencyRow, MemoryRow, OnnxArtifact, Precision, ThroughputRow
from vitcompress.core.records import Cost, FileRef
from vitcompress.exporters.latency import TAIL_SAMPLES
from vitcompress.pipeline.report.records import Records
from vitcompress.stages.gates.registry import NO_TEACHER_ENGINE

MEGABYTE = 1_000_000
"""Bytes; the unit of the size gate and of every size shown."""

_RUNTIMES = {
    "torch": "torch",
    "onnx": "ONNX",
    "tensorrt": "TensorRT engine",
    "tensorrt-rtx": "TensorRT-RTX engine",
}
"""As people call them, in the order of the table."""
_PRECISIONS = get_args(Precision)
_NO_MEMORY = {"torch": "a graph in torch shares its process with everything else that this program is"}
"""Why no artifact of a runtime has a memory of its own."""
_PROVIDERS = {"CPUExecutionProvider": "CPU", "CUDAExecutionProvider": "GPU"}


def quantity(
    value: float | None, low: float | None = None, high: float | None = None, reason: str = ""
) -> dict[str, Any]:
    """Return a number with its interval, or null with the reason; a NaN or an infinity is no number."""
    numbers = [number for number in (value, low, high) if number is not None]
    if value is not None and all(math.isfinite(number) for number in numbers):
        return {"value": value, "low": low, "high": high, "reason": ""}
    if value is not None:
        reason = "the measured value is not a finite number"
    return {"value": None, "low": None, "high": None, "reason": reason or "not measured in this run"}


class Artifact(NamedTuple):
    """One model in one runtime and precision: a row of the table."""

    model: str
    runtime: str
    precision: str

    def place(self, deployed: str) -> tuple[bool, int, bool, str, int]:
        """Return where it stands: the teacher first; then by runtime, the deployed graph before others, wide first."""
        order = list(_RUNTIMES).index(self.runtime) if self.runtime in _RUNTIMES else len(_RUNTIMES)
        return self.model != "teacher", order, self.model != deployed, self.model, _PRECISIONS.index(self.precision)

    def label(self, provider: str) -> str:
        """Return what it is called, with what it ran on where there is a choice: ``student plain fp16, ONNX CPU``."""
        who = "teacher" if self.model == "teacher" else f"student {self.model}"
        precision = "" if self.precision == "fp32" else f" {self.precision}"
        runtime = [_RUNTIMES.get(self.runtime, self.runtime), _PROVIDERS.get(provider, provider)]
        return f"{who}{precision}, {' '.join(filter(None, runtime))}"


def model_rows(records: Records) -> list[dict[str, Any]]:
    """Return one row per (model, runtime, precision): teacher, student in torch, deployed ONNX, other graphs, engines.

    Besides all that a row of ``verify`` names, there is always a row for the teacher's and the deployed student's ONNX
    file, and for every engine that was asked for, built or not, measured or not.
    """
    export, verify = records.export, records.verify
    measured: tuple[AccuracyRow | LatencyRow, ...] = (*verify.accuracy, *verify.latency)
    providers = {_of(row): row.provider for row in measured}
    accuracy = {_of(row): row for row in verify.accuracy}
    latency = {(_of(row), row.batch): row for row in verify.latency}
    engines = {Artifact(export.deployed, one.flavour, one.precision): one.reason for one in export.engines}
    deployed = Artifact(export.deployed, "onnx", records.bundle.onnx)
    artifacts = {*providers, *engines, Artifact("teacher", "onnx", "fp32"), deployed}
    batches = sorted({1, *(row.batch for row in verify.latency)})
    throughput: dict[Artifact, dict[str, dict[str, Any]]] = {}
    for given in sorted(verify.throughput, key=lambda row: row.batch):
        rate = quantity(given.images_per_second, given.low, given.high, given.reason)
        throughput.setdefault(_of(given), {})[str(given.batch)] = rate
    memory = {_of(row): row for row in sorted(verify.memory, key=lambda row: -row.batch)}  # the smallest batch stays
    rows = []
    for one in sorted(artifacts, key=lambda one: one.place(export.deployed)):
        absent, used = engines.get(one, ""), memory.get(one)
        cost, file = _cost_and_file(one, records)
        rows.append(
            {
                "label": one.label(providers.get(one, "")) + (" (deployed)" if one == deployed else ""),
                **one._asdict(),
                "provider": providers.get(one, ""),
                "deployed": one == deployed,
                **_accuracy(accuracy.get(one), absent, is_teacher=one.model == "teacher"),
                "latency": {str(batch): _latency(latency.get((one, batch)), absent) for batch in batches},
                "throughput": throughput.get(one, {}),
                "memory": quantity(used.peak_rss_bytes, reason=used.reason)
                if used
                else quantity(None, reason=absent or _NO_MEMORY.get(one.runtime, "")),
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


def _cost_and_file(one: Artifact, records: Records) -> tuple[Cost | None, FileRef | OnnxArtifact | None]:
    """Return what a model costs and what it is loaded from in its runtime; None where no record says."""
    export, fold, distill = records.export, records.fold, records.distill
    if one.runtime == "torch":
        if one.model == "teacher":
            return records.teacher.cost, records.teacher.weights
        costs = {str(graph): cost for graph, cost in fold.costs.items()}
        weights = {str(graph): file for graph, file in ((distill.model.graph, distill.weights), *fold.graphs.items())}
        return costs.get(one.model), weights.get(one.model)
    exported = {str(graph): artifact for graph, artifact in export.student.items()} | {"teacher": export.teacher}
    fp32 = exported.get(one.model)
    files: dict[tuple[str, str], FileRef | OnnxArtifact | None] = {("onnx", "fp32"): fp32}
    files |= {("onnx", precision): artifact for precision, artifact in export.reduced.items()}
    files |= {(engine.flavour, engine.precision): engine.file for engine in export.engines}
    return (fp32.cost if fp32 else None), files.get((one.runtime, one.precision))


def _accuracy(row: AccuracyRow | None, absent: str, *, is_teacher: bool) -> dict[str, Any]:
    """Return accuracy, agreement and calibration as quantities; others are compared with the teacher in torch."""
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
    """Return median, tails and speed-up at one batch size, as quantities."""
    if row is None:
        nothing = quantity(None, reason=absent)
        return {**dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "speedup"), nothing), "samples": 0}
    no_ratio = row.reason or "no teacher was measured in this runtime"
    if row.runtime not in ("torch", "onnx"):
        no_ratio = NO_TEACHER_ENGINE
    return {
        "p50_ms": quantity(row.p50_ms, row.p50_low, row.p50_high, row.reason),
        "p90_ms": quantity(row.p90_ms, reason=row.reason),
        "p99_ms": quantity(row.p99_ms, reason=row.reason or f"fewer than {TAIL_SAMPLES} samples"),
        "speedup": quantity(row.speedup, row.speedup_low, row.speedup_high, no_ratio),
        "samples": row.samples,
    }
