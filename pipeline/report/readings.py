"""Facts of a report that several renderings tell: which artifact is which, what differs, what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vitcompress.core.artifact_records import arithmetic_of
from vitcompress.core.machine import machine_name
from vitcompress.core.measured_records import Hardware
from vitcompress.pipeline.report.wording import gate_said

Report = Mapping[str, Any]
Key = tuple[str, str, str]
"""(model, runtime, precision) of an artifact."""

NOT_MADE = "not made: "
_PRODUCTS = ("matmul", "gemm", "conv", "correlation")
"""Types of operators and layers; the last is what tensorrt-rtx makes of a convolution."""


def key_of(row: Mapping[str, Any]) -> Key:
    """Return which artifact any row of the report is about."""
    return row["model"], row["runtime"], row["precision"]


def deployed_row(report: Report) -> dict[str, Any]:
    """Return the row of the deployed ONNX file."""
    row: dict[str, Any] = next(row for row in report["models"] if row["deployed"])
    return row


def machine_of(report: Report) -> str:
    """Return the machine that the report's own numbers were measured on."""
    return machine_name(Hardware(**report["hardware"]) if report["hardware"] else None)


def names(report: Report) -> dict[Key, str]:
    """Return what each artifact is called."""
    return {key_of(row): row["label"].removesuffix(" (deployed)") for row in report["models"]}


def flips(report: Report) -> list[dict[str, Any]]:
    """Return the flipped images of each artifact that was compared image by image, the deployed one first."""
    deployed = key_of(deployed_row(report))
    return sorted(report["flips"], key=lambda one: key_of(one) != deployed)


def not_made(report: Report) -> list[str]:
    """Return what was asked for and could not be made, each with its reason."""
    return [line.removeprefix(NOT_MADE) for line in report["verdict"]["blocking"] if line.startswith(NOT_MADE)]


def reasons(report: Report, which: str) -> list[str]:
    """Return the lines of the verdict's ``blocking`` or ``open``; a gate's with what was measured against its limit."""
    gates = {f"{row['artifact']} {row['label']}: {row['verdict']}": row for row in report["gates"]}
    lines: list[str] = report["verdict"][which]
    return [f"{line} ({gate_said(gates[line])})" if line in gates else line for line in lines]


def speedups(report: Report) -> list[str]:
    """Return which teacher is today's, and which speed-ups are against a teacher in another precision."""
    called = names(report)
    lines = []
    for one in (each for each in report["teacher_references"] if each["batch"] == 1):
        times = [
            f"{called['teacher', row['runtime'], row['precision']]} ({row['p50_ms']:.3g} ms)" for row in one["among"]
        ]
        slower = f", the fastest; others: {'; '.join(times[1:])}" if times[1:] else ""
        found = f"{times[0]}{slower}" if times else f"unknown, for {one['reason']}"
        lines.append(f"Today's teacher, as it is deployed (verify.teacher_reference): {found}.")
    others = [
        called[key_of(row)]
        for row in report["models"]
        if row["latency"].get("1", {}).get("speedup_against") not in (None, arithmetic_of(row["precision"]))
    ]
    if others:
        lines.append(f"Against the teacher in fp32, for there is none in their precision: {'; '.join(others)}.")
    return lines


class ClassLoss(NamedTuple):
    """One class: how many of its images the teacher and the deployed student answer right."""

    name: str
    images: int
    teacher: int
    student: int

    @property
    def points(self) -> float:
        """Return how much of its images the student lost, percent."""
        return 100 * (self.teacher - self.student) / self.images if self.images else 0.0


def class_losses(report: Report) -> list[ClassLoss]:
    """Return all classes, those first that lost most; none where right answers were not counted by class."""
    rows = {key_of(row): row for row in report["accuracy"]}
    teachers = (rows.get(("teacher", runtime, "fp32")) for runtime in ("torch", "onnx"))
    teacher = next((row for row in teachers if row and row["class_right"]), None)
    student = rows.get(key_of(deployed_row(report)))
    if not teacher or not student or not student["class_right"]:
        return []
    counts = report["class_images"], teacher["class_right"], student["class_right"]
    losses = map(ClassLoss, report["class_names"], *counts)
    return sorted(losses, key=lambda one: (-one.points, one.student - one.teacher))


def engine_right(report: Report) -> dict[str, int]:
    """Return by class how many images what is recommended as engine answers right; empty where none was measured."""
    wanted = (report["artifacts"]["deployed"], *(report["artifacts"]["bundle"]["engine"] or ()))
    rows = [row["class_right"] for row in report["accuracy"] if key_of(row) == wanted]
    return dict(zip(report["class_names"], rows[0], strict=True)) if rows and rows[0] else {}


def place(report: Report, runtime: str, precision: str) -> str:
    """Return whether the bundle has an artifact, and if not why."""
    for one in report["artifacts"]["bundle"]["rejected"]:
        if (one["runtime"], one["precision"]) == (runtime, precision):
            return f"no: {one['why']}"
    return "yes"


def products(operators: Mapping[str, Mapping[str, int]]) -> str:
    """Return what the matrix products of a graph or an engine compute in: ``48 fp16, 1 fp32``."""
    counts: dict[str, int] = {}
    for kind, dtypes in operators.items():
        if kind.lower() in _PRODUCTS:
            for dtype, count in dtypes.items():
                counts[dtype] = counts.get(dtype, 0) + count
    return ", ".join(f"{count} {dtype}" for dtype, count in sorted(counts.items(), key=lambda item: -item[1])) or "-"


def bundle_lines(report: Report) -> list[str]:
    """Return what is deployed and what the bundle recommends, why, and how far folding moved the logits."""
    made = report["artifacts"]
    bundle = made["bundle"]
    lines = [
        f"Deployed graph: {made['deployed']} ({made['deployed_why']}).",
        f"Recommended in ONNX Runtime: {bundle['onnx']} ({bundle['onnx_why']}).",
    ]
    if bundle["engine"]:
        lines.append(f"Recommended as engine: {' '.join(bundle['engine'])} ({bundle['engine_why']}).")
    rewrites = made["student"][made["deployed"]]["rewrites"]
    lines.append(f"Rewritten exactly before export: {'; '.join(rewrites) or 'nothing'}.")
    graphs = report["graphs"]
    if graphs["agreement"]["value"] is not None:
        lines.append(
            f"The folded projector's logits differ from the kept one's by at most {graphs['agreement']['value']:.2g} "
            f"over {graphs['images']} images (tolerance {graphs['tolerance']:g})."
        )
    return lines


def advice(report: Report) -> str:
    """Return what the analysis advises, and whether this run did so; empty where it advises nothing."""
    found, used = report["analysis"]["advice"], report["training"]["student"]["strategy"]
    if found is None:
        return ""
    differs = "" if found["strategy"] in (used, None) else f" This run's student is {used}."
    return f"{found['summary']}.{differs}"


def still_falling(report: Report) -> str:
    """Return a sentence on what was timed before its times had stopped falling; empty where all had settled."""
    called = names(report)
    moving: dict[str, list[str]] = {}
    for row in report["latency"]:
        if not row["settled"]:
            moving.setdefault(called[key_of(row)], []).append(str(row["batch"]))
    which = [f"{name} at batch {' and '.join(batches)}" for name, batches in moving.items()]
    return f"Times were still falling when warm-up ended, in one session or more: {'; '.join(which)}." if which else ""


def last_settings(history: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return epochs by training. A training that was begun again with other settings keeps the last lines alone."""
    last = {line.get("training", "training"): line.get("settings") for line in history}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for line in history:
        name = line.get("training", "training")
        if line.get("settings") == last[name] and "epoch" in line:
            found.setdefault(name, []).append(line)
    return {name: sorted(lines, key=lambda line: line["epoch"]) for name, lines in found.items()}
