"""The report's central table: one row for each model in each runtime it was measured in."""

from __future__ import annotations

import math
from typing import Any

from core.artifact_records import AccuracyRow, ExportRecord, LatencyRow, OnnxArtifact, VerifyRecord
from core.records import Cost, DistillRecord, FileRef, FoldRecord, TeacherRecord
from exporters.latency import TAIL_SAMPLES
from stages.gates.config import NO_TEACHER_ENGINE

MEGABYTE = 1_000_000
"""Bytes; the unit of the size gate and of every size shown."""

_RUNTIME_WORDS = {"torch": "torch", "onnx": "ONNX", "engine": "TensorRT engine"}
_RUNTIMES = tuple(_RUNTIME_WORDS)
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


def model_rows(
    teacher: TeacherRecord, distill: DistillRecord, fold: FoldRecord, export: ExportRecord, verify: VerifyRecord
) -> list[dict[str, Any]]:
    """One row per (model, runtime): teacher, student in torch, deployed ONNX, other graphs, engine.

    Besides every pair that a row of ``verify`` names, there is always a row for the teacher's and the deployed
    student's ONNX file, and for the engine unless it is switched off, measured or not.
    """
    accuracy = {(row.model, row.runtime): row for row in verify.accuracy}
    latency = {(row.model, row.runtime, row.batch): row for row in verify.latency}
    measured: tuple[AccuracyRow | LatencyRow, ...] = (*verify.accuracy, *verify.latency)
    providers = {(row.model, row.runtime): row.provider for row in measured}
    pairs = {*providers, ("teacher", "onnx"), (str(export.deployed), "onnx")}
    if export.engine.status != "off":
        pairs.add((str(export.deployed), "engine"))
    batches = sorted({1, *(row.batch for row in verify.latency)})

    def place(pair: tuple[str, str]) -> tuple[bool, int, bool, str]:
        model, runtime = pair
        order = _RUNTIMES.index(runtime) if runtime in _RUNTIMES else len(_RUNTIMES)
        return model != "teacher", order, model != export.deployed, model

    rows = []
    for model, runtime in sorted(pairs, key=place):
        absent = export.engine.reason if runtime == "engine" else ""
        cost, file = _cost_and_file(model, runtime, teacher, distill, fold, export)
        deployed = model == export.deployed and runtime == "onnx"
        rows.append(
            {
                "label": f"{'teacher' if model == 'teacher' else f'student {model}'}, "
                f"{_runtime_words(runtime, providers.get((model, runtime), ''))}{' (deployed)' if deployed else ''}",
                "model": model,
                "runtime": runtime,
                "provider": providers.get((model, runtime), ""),
                "deployed": deployed,
                **_accuracy(accuracy.get((model, runtime)), absent, is_teacher=model == "teacher"),
                "latency": {str(batch): _latency(latency.get((model, runtime, batch)), absent) for batch in batches},
                "parameters": None if cost is None else cost.parameters,
                "macs": None if cost is None else cost.macs,
                "bytes": None if file is None else file.bytes,
                "cost_reason": "" if cost else f"no cost is recorded for '{model}'",
                "bytes_reason": "" if file else absent or f"no file is recorded for '{model}' in {runtime}",
            }
        )
    return rows


def _runtime_words(runtime: str, provider: str) -> str:
    """A runtime as people call it, with what it ran on where there is a choice: ``ONNX CPU``, ``ONNX GPU``."""
    return " ".join(filter(None, [_RUNTIME_WORDS.get(runtime, runtime), _PROVIDER_WORDS.get(provider, provider)]))


def _cost_and_file(
    model: str,
    runtime: str,
    teacher: TeacherRecord,
    distill: DistillRecord,
    fold: FoldRecord,
    export: ExportRecord,
) -> tuple[Cost | None, FileRef | OnnxArtifact | None]:
    """What a model costs and what it is loaded from in ``runtime``; None where no record says."""
    onnx = export.teacher if model == "teacher" else {str(key): one for key, one in export.student.items()}.get(model)
    if runtime in ("onnx", "engine"):
        built_from = model == export.deployed  # the one engine is the deployed student's
        engine = export.engine.file if built_from else None
        return (onnx.cost if onnx else None), engine if runtime == "engine" else onnx
    if model == "teacher":
        return teacher.cost, teacher.weights
    costs = {str(graph): cost for graph, cost in fold.costs.items()}
    files = {str(graph): ref for graph, ref in fold.graphs.items()}
    trained = distill.weights if model == distill.model.graph else None
    return costs.get(model), files.get(model, trained)


def _accuracy(row: AccuracyRow | None, absent: str, *, is_teacher: bool) -> dict[str, Any]:
    """Top-1, top-5 and drop as quantities; the teacher in torch is what others are compared with."""
    if row is None:
        nothing = quantity(None, reason=absent)
        return {"top1": nothing, "top5": nothing, "drop": nothing, "images": None}
    reference = "this is the reference" if is_teacher else "no drop was computed"
    few = "no top-5 (five or fewer classes, or not computed)"
    return {
        "top1": quantity(row.top1, row.top1_low, row.top1_high, row.reason),
        "top5": quantity(row.top5, reason=row.reason or few),
        "drop": quantity(row.drop, row.drop_low, row.drop_high, row.reason or reference),
        "images": row.images,
    }


def _latency(row: LatencyRow | None, absent: str) -> dict[str, Any]:
    """Median, tails and speed-up at one batch size, as quantities."""
    if row is None:
        nothing = quantity(None, reason=absent)
        return {"p50_ms": nothing, "p90_ms": nothing, "p99_ms": nothing, "speedup": nothing, "samples": 0}
    no_ratio = row.reason or "no teacher was measured in this runtime"
    if row.runtime == "engine":
        no_ratio = NO_TEACHER_ENGINE
    few = f"fewer than {TAIL_SAMPLES} samples"
    return {
        "p50_ms": quantity(row.p50_ms, row.p50_low, row.p50_high, row.reason),
        "p90_ms": quantity(row.p90_ms, reason=row.reason),
        "p99_ms": quantity(row.p99_ms, reason=row.reason or few),
        "speedup": quantity(row.speedup, row.speedup_low, row.speedup_high, no_ratio),
        "samples": row.samples,
    }
