"""The report of a run: one JSON-able dict, made of records alone, that every rendering reads.

Its types are in ``pipeline.report.shape``. A number that may be missing is a *quantity*: ``{"value", "low", "high",
"reason"}`` with ``value`` null and ``reason`` filled when nothing measured it.

Units: top-1 and top-5 percent, drops points, latencies milliseconds, sizes bytes, times seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from pydantic_core import to_jsonable_python

from vitcompress.core.artifact_records import BundleRecord, ExportRecord, OnnxArtifact
from vitcompress.core.errors import EXIT_GATE_FAILED, EXIT_OK
from vitcompress.core.measured_records import GateRow, GatesRecord, TeacherReference
from vitcompress.core.records import ControlRecord, FoldRecord
from vitcompress.pipeline.report.models import MEGABYTE, model_rows, quantity
from vitcompress.pipeline.report.records import Records as Records
from vitcompress.pipeline.report.shape import SCHEMA_VERSION as SCHEMA_VERSION
from vitcompress.pipeline.report.shape import MeasuredElsewhere
from vitcompress.pipeline.report.trained import findings, worth
from vitcompress.stages.gates.registry import words_of
from vitcompress.stages.judging.class_metrics import FEWEST
from vitcompress.stages.judging.tasks import score_of


def build(
    records: Records,
    *,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    timings: Mapping[str, float],
    command: str,
    notes: Sequence[str] = (),
    history: Sequence[Mapping[str, Any]] = (),
    machines: Sequence[MeasuredElsewhere] = (),
) -> dict[str, Any]:
    """Return the report as JSON values; a number that is NaN or infinite has become null, and a note says so.

    ``config`` is the resolved one, ``history`` the lines of ``metrics.jsonl``; ``notes`` are what a reader must be told
    plainly (a reduced geometry, something skipped), ``machines`` what others measured of the bundle.
    """
    rows, verify = model_rows(records), records.verify
    score = score_of(verify.task, records.data.labelled)
    shown = {("teacher", "torch", "fp32"), (records.export.deployed, "onnx", records.bundle.onnx)}
    if records.control.kind == "none":  # a control that was trained for an earlier request is none of this run's
        history = [line for line in history if line.get("training") != "control"]
    if not records.qat.weights:  # likewise
        history = [line for line in history if not str(line.get("training")).startswith("qat-")]
    report = {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict_of(records.gates, records.export.not_made, score),
        "headline": _headline(rows, verify.teacher_reference()),
        "score": {"label": score, "unit": "%", "labelled": records.data.labelled},
        "models": rows,
        **dict(verify),
        "confusions": [one for one in verify.confusions if (one.model, one.runtime, one.precision) in shown],
        "class_names": records.data.classes,
        "gates": [row.model_dump(mode="json") | words_of(row.gate, score) for row in records.gates.rows],
        "machines": machines,
        "artifacts": _artifacts(records.export, records.bundle),
        "graphs": _graphs(records.fold, records.export, rows),
        "data": records.data.model_dump(mode="json", exclude={"config", "pixels", "mean", "std"})
        | {name: len(getattr(records.data, name)) for name in ("classes", "left_out", "dropped")},
        "training": _training(records),
        "history": history,
        "findings": findings(records, history),
        "analysis": _analysis(records),
        "config": config,
        "environment": environment,
        "timings": timings,
        "command": command,
        "notes": [*notes, *_small_classes(records)],
    }
    clean: dict[str, Any] = to_jsonable_python(report, inf_nan_mode="null")
    if clean != to_jsonable_python(report):
        clean["notes"].append("A number that is not finite (NaN or infinite) is null in report.json.")
    return clean


def _small_classes(records: Records) -> list[str]:
    """Return that classes have too few held-out images for the gates that judge by class; nothing where none does."""
    counts = dict(zip(records.data.classes, records.verify.class_images, strict=False))  # of none they are not counted
    few = {name: count for name, count in counts.items() if count < FEWEST}
    if not few or not any("class_recall" in row.gate or "macro_accuracy" in row.gate for row in records.gates.rows):
        return []
    least = min(few, key=lambda name: few[name])
    return [
        f"Classes with fewer than {FEWEST} held-out images: {len(few)} of {len(counts)} ('{least}' has {few[least]}). "
        "Gates judge by class: hold out more (data.val_fraction), or join classes."
    ]


def _headline(rows: list[dict[str, Any]], today: TeacherReference | None) -> dict[str, Any]:
    """Compare the deployed student (its ONNX file) against the teacher (as ONNX; its accuracy in torch when known).

    ``today`` is the teacher that is deployed today.
    """
    deployed = next(row for row in rows if row["deployed"])
    teachers = {(row["runtime"], row["precision"]): row for row in rows if row["model"] == "teacher"}
    onnx = teachers["onnx", "fp32"]
    reference = teachers.get(("torch", "fp32"), onnx)
    one = deployed["latency"]["1"]
    against = teachers["onnx", one["speedup_against"] or "fp32"]
    replaced = today and today.teacher and teachers[today.teacher.runtime, today.teacher.precision]

    def compare(key: str) -> dict[str, Any]:
        return {"teacher": onnx[key], "student": deployed[key], "ratio": onnx[key] / deployed[key]}

    return {
        "student": deployed["label"],
        "teacher_top1": reference["top1"],
        "student_top1": deployed["top1"],
        "drop": deployed["drop"],
        "speedup": one["speedup"],
        "speedup_against": against["label"],
        "speedup_deployed": one["speedup_deployed"],
        "deployed_teacher": replaced["label"] if replaced else "",
        "teacher_p50_ms": against["latency"]["1"]["p50_ms"],
        "student_p50_ms": one["p50_ms"],
        **{key: compare(key) for key in ("parameters", "macs", "bytes")},
    }


def _artifacts(export: ExportRecord, bundle: BundleRecord) -> dict[str, Any]:
    """Return every exported file and what was checked about it; which of them are deployed."""

    def onnx(artifact: OnnxArtifact) -> dict[str, Any]:
        return artifact.model_dump(mode="json") | {"megabytes": artifact.bytes / MEGABYTE}

    as_they_are = {"deployed", "deployed_why", "preprocess", "missing", "engines", "engines_why", "teacher_engines"}
    return {
        **export.model_dump(mode="json", include=as_they_are),
        "teacher": onnx(export.teacher),
        "teacher_reduced": {precision: onnx(artifact) for precision, artifact in export.teacher_reduced.items()},
        "student": {graph: onnx(artifact) for graph, artifact in export.student.items()},
        "reduced": {precision: onnx(artifact) for precision, artifact in export.reduced.items()},
        "bundle": bundle,
    }


def _graphs(fold: FoldRecord, export: ExportRecord, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the student's deployable graphs side by side, and how well the folded one agrees with the kept one."""
    compared = fold.max_logit_difference is not None
    latency = {row["model"]: row["latency"] for row in rows if (row["runtime"], row["precision"]) == ("onnx", "fp32")}
    return {
        "agreement": quantity(fold.max_logit_difference, reason="" if compared else "nothing was folded in this run"),
        "tolerance": fold.tolerance if compared else None,
        "images": fold.images if compared else None,
        "rank": fold.rank,
        "rows": [
            {
                "graph": graph,
                "deployed": graph == export.deployed,
                "parameters": artifact.cost.parameters,
                "macs": artifact.cost.macs,
                "nodes": artifact.nodes,
                "bytes": artifact.bytes,
                "latency": latency.get(graph, {}),
            }
            for graph, artifact in export.student.items()
        ],
    }


def _training(records: Records) -> dict[str, Any]:
    """Return what was trained, from what, for how long."""
    teacher, student, distill = records.teacher, records.student, records.distill
    return {
        "teacher": {
            "arch": teacher.model.name,
            "source": teacher.source + (f"; {teacher.tune}" if teacher.tune else ""),
            **teacher.model_dump(include={"epochs", "width", "depth", "val_top1"}),
        },
        "student": {
            "arch": student.model.name,
            **student.model_dump(include={"strategy", "width", "depth", "explanation"}),
        },
        "distill": distill.model_dump(mode="json", exclude={"model", "weights", "kept"}),
        "control": _control(records.control),
    }


def _control(control: ControlRecord) -> dict[str, Any] | None:
    """Return the control and what the teacher was worth; None where none was trained."""
    if control.kind == "none":
        return None
    left_out = {"weights", "right", "distilled_right", "gain", "gain_low", "gain_high"}
    return control.model_dump(mode="json", exclude=left_out) | {
        "gain": quantity(control.gain, control.gain_low, control.gain_high),
        "sentence": worth(control),
    }


def _analysis(records: Records) -> dict[str, Any]:
    """Return what the features looked like, in short; the numbers are in the run's ``analysis/``."""
    teacher, student = records.analyze, records.dynamics
    nothing = "the features were not analysed, or not with these settings; see `compress analyze`"
    files = student.files if student and student.files else teacher.files if teacher else ()
    return {
        "images": teacher.images if teacher else 0,
        "sample": teacher.sample if teacher else "",
        "reason": (teacher.reason if teacher else nothing) if not (teacher and teacher.images) else "",
        "advice": teacher.advice if teacher else None,
        "networks": student.networks if student else (),
        "approach": student.approach if student else (),
        "missing": student.missing if student else (),
        "figures": {PurePosixPath(ref.path).stem: ref.path for ref in files if ref.path.endswith(".png")},
    }


def verdict_of(gates: GatesRecord, not_made: Sequence[str], score: str = "top-1") -> dict[str, Any]:
    """Return pass or fail, the exit code that follows, and the gates that decided it."""
    blocking = [row for row in gates.rows if row.blocks]
    open_gates = [row for row in gates.rows if row not in blocking and row.verdict != "pass"]
    if not gates.passed and blocking:
        word, why = "FAIL", f"{len(blocking)} of {len(gates.rows)} gates stand in the way"
    elif not gates.passed:
        word, why = "FAIL", "something that was asked for could not be made"
    elif not gates.rows:
        word, why = "DONE", "no gate was set, so nothing was judged"
    elif len(open_gates) == len(gates.rows) or any(row.verdict == "inconclusive" for row in gates.rows):
        # Not a failure, but no proof either: the word must not say more than was measured.
        word, why = "UNDECIDED", "no gate failed, but not all could be decided"
    elif open_gates:
        word = "PASS"
        why = f"{len(gates.rows) - len(open_gates)} of {len(gates.rows)} gates passed, the others are not required"
    else:
        word, why = "PASS", f"all {len(gates.rows)} gates passed"
    return {
        "passed": gates.passed,
        "word": word,
        "exit_code": EXIT_OK if gates.passed else EXIT_GATE_FAILED,
        "why": why,
        "blocking": [*(_decided(row, score) for row in blocking), *(f"not made: {what}" for what in not_made)],
        "open": [_decided(row, score) for row in open_gates],
    }


def _decided(row: GateRow, score: str) -> str:
    return f"{row.artifact} {words_of(row.gate, score)['label']}: {row.verdict}"
