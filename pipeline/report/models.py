"""The report's central table: one row for each model in each runtime it was measured in."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, get_args

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact, Precision
from vitcompress.core.measured_records import AccuracyRow, LatencyRow, MemoryRow, TeacherReference, ThroughputRow
from vitcompress.core.records import Cost, FileRef
from vitcompress.exporters.latency import TAIL_SAMPLES
from vitcompress.pipeline.report.records import Records
from vitcompress.stages.gates.registry import NO_TEACHER
from vitcompress.stages.judging.contestant import IN_TORCH

MEGABYTE = 1_000_000
"""Bytes; the unit of the size gate and of every size shown."""
BY_DEFINITION = "by definition: the teacher's answers stand for labels"

_RUNTIMES = {
    "torch": "torch",
    "torch-compiled": "compiled torch",
    "onnx": "ONNX",
    "tensorrt": "TensorRT engine",
    "tensorrt-rtx": "TensorRT-RTX engine",
}
"""As people call them, in the order of the table."""
_PRECISIONS = get_args(Precision)
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
    accuracy = {_of(row): row for row in verify.accuracy}
    latency = {(_of(row), row.batch): row for row in verify.latency}
    memory = {_of(row): row for row in sorted(verify.memory, key=lambda row: -row.batch)}  # the smallest batch stays
    providers = {_of(row): row.provider for rows in (verify.accuracy, verify.latency) for row in rows}
    engines = {
        Artifact(model, one.flavour, one.precision): one.reason
        for model, found in (("teacher", export.teacher_engines), (export.deployed, export.engines))
        for one in found
    }
    deployed = Artifact(export.deployed, "onnx", records.bundle.onnx)
    artifacts = {*providers, *engines, Artifact("teacher", "onnx", "fp32"), deployed}
    batches = sorted({1, *(row.batch for row in verify.latency)})
    references = {batch: verify.teacher_reference(batch) for batch in batches}
    rows = []
    for one in sorted(artifacts, key=lambda one: one.place(export.deployed)):
        absent = engines.get(one, "")
        used = memory.get(one)
        shared = "a graph in torch shares its process with everything else that this program is"
        no_memory = used.reason if used else absent or (shared if one.runtime in IN_TORCH else "")
        rates = sorted((row for row in verify.throughput if _of(row) == one), key=lambda row: row.batch)
        rows.append(
            {
                "label": one.label(providers.get(one, "")) + (" (deployed)" if one == deployed else ""),
                **one._asdict(),
                "provider": providers.get(one, ""),
                "deployed": one == deployed,
                **_accuracy(accuracy.get(one), absent, one.model == "teacher", records.data.labelled),
                "latency": {
                    str(batch): _latency(latency.get((one, batch)), absent, references[batch]) for batch in batches
                },
                "throughput": {
                    str(row.batch): quantity(row.images_per_second, row.low, row.high, row.reason) for row in rates
                },
                "memory": quantity(used.peak_rss_bytes if used else None, reason=no_memory),
                **_cost(one, records, absent),
            }
        )
    return rows


def _of(row: AccuracyRow | LatencyRow | ThroughputRow | MemoryRow) -> Artifact:
    return Artifact(row.model, row.runtime, row.precision)


def _cost(one: Artifact, records: Records, absent: str) -> dict[str, Any]:
    """Return what a model costs and the size of what it is loaded from in its runtime; a reason where none is known."""
    export, fold, distill = records.export, records.fold, records.distill
    graph: Any = one.model
    precision: Any = one.precision
    cost: Cost | None
    file: FileRef | OnnxArtifact | EngineArtifact | None
    if one.runtime in IN_TORCH and graph == "teacher":
        cost, file = records.teacher.cost, records.teacher.weights
    elif one.runtime == "torch":
        cost, file = fold.costs.get(graph), {distill.model.graph: distill.weights, **fold.graphs}.get(graph)
    else:
        fp32 = export.teacher if graph == "teacher" else export.student.get(graph)
        reduced, engines = export.reduced, export.engines
        if graph == "teacher":
            reduced, engines = export.teacher_reduced, export.teacher_engines
        made = {(engine.flavour, engine.precision): engine for engine in engines if engine.file}
        cost, file = fp32.cost if fp32 else None, made.get((one.runtime, precision))
        if one.runtime == "onnx":
            file = fp32 if precision == "fp32" else reduced.get(precision)
    return {
        "parameters": cost.parameters if cost else None,
        "macs": cost.macs if cost else None,
        "bytes": file.bytes if file else None,
        "cost_reason": "" if cost else f"no cost is recorded for '{one.model}'",
        "bytes_reason": "" if file else absent or f"no file is recorded for '{one.model}' in {one.runtime}",
    }


def _accuracy(row: AccuracyRow | None, absent: str, is_teacher: bool, labelled: bool) -> dict[str, Any]:
    """Return accuracy, agreement and calibration as quantities; others are compared with the teacher in torch."""
    if row is None:
        nothing = quantity(None, reason=absent)
        return {**dict.fromkeys(("top1", "top5", "drop", "agreement", "ece"), nothing), "images": None}
    reference = "this is the reference" if is_teacher else "no drop was computed"
    itself = "others are compared with this one" if row.runtime == "torch" else ""
    its_own = is_teacher and row.runtime == "torch" and not labelled  # the teacher agrees with itself
    few = "no top-5 (five or fewer classes, or not computed)"
    return {
        "top1": quantity(None, reason=BY_DEFINITION)
        if its_own
        else quantity(row.top1, row.top1_low, row.top1_high, row.reason),
        "top5": quantity(row.top5, reason=row.reason or few),
        "drop": quantity(row.drop, row.drop_low, row.drop_high, row.reason or reference),
        "agreement": quantity(row.agreement, row.agreement_low, row.agreement_high, row.reason or itself),
        "ece": quantity(row.ece, reason=row.reason),
        "images": row.images,
    }


def _latency(row: LatencyRow | None, absent: str, reference: TeacherReference | None) -> dict[str, Any]:
    """Return median, tails and speed-ups at one batch size, as quantities."""
    if row is None:
        nothing = dict.fromkeys(
            ("p50_ms", "p90_ms", "p99_ms", "speedup", "speedup_deployed"), quantity(None, reason=absent)
        )
        return {**nothing, "speedup_against": None, "samples": 0}
    no_ratio = row.reason or row.speedup_reason or NO_TEACHER
    no_reference = row.reason or (reference.reason if reference else "")
    deployed = row.speedup_deployed, row.speedup_deployed_low, row.speedup_deployed_high
    return {
        "p50_ms": quantity(row.p50_ms, row.p50_low, row.p50_high, row.reason),
        "p90_ms": quantity(row.p90_ms, reason=row.reason),
        "p99_ms": quantity(row.p99_ms, reason=row.reason or f"fewer than {TAIL_SAMPLES} samples"),
        "speedup": quantity(row.speedup, row.speedup_low, row.speedup_high, no_ratio),
        "speedup_against": row.speedup_against,
        "speedup_deployed": quantity(*deployed, no_reference),
        "samples": row.samples,
    }
