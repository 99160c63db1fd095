"""Facts of a report that several renderings tell: which artifact is which, what differs, what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from vitcompress.core.words import counted
from vitcompress.pipeline.report.wording import gate_said, stopped

Report = Mapping[str, Any]
Key = tuple[str, str, str]
"""(model, runtime, precision) of an artifact."""

NOT_MADE = "not made: "
EARLIER = "records of earlier versions of this program hold none"
_RUNTIMES = {"torch": "torch", "onnx": "ONNX", "tensorrt": "TensorRT", "tensorrt-rtx": "RTX"}
_PRODUCTS = ("matmul", "gemm", "conv", "correlation")
"""Types of operators and layers; the last is what tensorrt-rtx makes of a convolution."""


def key_of(row: Mapping[str, Any]) -> Key:
    """Return which artifact any row of the report is about."""
    return row["model"], row["runtime"], row["precision"]


def deployed_row(report: Report) -> dict[str, Any]:
    """Return the row of the deployed ONNX file."""
    row: dict[str, Any] = next(row for row in report["models"] if row["deployed"])
    return row


def labels(report: Report) -> dict[Key, str]:
    """Return the label of each artifact."""
    return {key_of(row): row["label"] for row in report["models"]}


def short_names(report: Report) -> dict[Key, str]:
    """Return names of artifacts for figures, in which labels are too long."""
    rows = [row for part in ("models", "latency", "throughput", "memory") for row in report[part]]
    return {
        key: " ".join([key[0], *([key[2]] if key[2] != "fp32" else []), _RUNTIMES.get(key[1], key[1])])
        for key in map(key_of, rows)
    }


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


def class_losses(report: Report) -> tuple[list[ClassLoss], str]:
    """Return all classes, those first that lost most; or none, and the reason."""
    rows = {key_of(row): row for row in report["accuracy"]}
    student = rows.get(key_of(deployed_row(report)))
    teachers = (rows.get(("teacher", runtime, "fp32")) for runtime in ("torch", "onnx"))
    teacher = next((row for row in teachers if row and row["class_right"]), None)
    images, names = report["class_images"], report["class_names"]
    counts = [row["class_right"] if row else [] for row in (teacher, student)]
    if not images or any(len(right) != len(images) for right in counts):
        reason = (student or {}).get("reason") or "records of earlier versions of this program hold no counts by class"
        return [], reason
    named = [names[index] if index < len(names) else f"class {index}" for index in range(len(images))]
    losses = map(ClassLoss, named, images, *counts)
    return sorted(losses, key=lambda one: (-one.points, one.student - one.teacher)), ""


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
    """Return what is deployed and what the bundle recommends, and why."""
    made = report["artifacts"]
    bundle = made["bundle"]
    lines = [
        f"Deployed graph: {made['deployed']} ({made['deployed_why']}).",
        f"Recommended in ONNX Runtime: {bundle['onnx']} ({bundle['onnx_why']}).",
    ]
    if bundle["engine"]:
        lines.append(f"Recommended engine: {' '.join(bundle['engine'])} ({bundle['engine_why']}).")
    rewrites = made["student"][made["deployed"]]["rewrites"]
    return [*lines, f"Rewritten exactly before export: {'; '.join(rewrites) or 'nothing'}."]


def folding(report: Report) -> str:
    """Return how far the folded graph's logits are from those of the graph with the projector kept."""
    graphs = report["graphs"]
    if graphs["agreement"]["value"] is None:
        return f"Folded against kept: unmeasured: {stopped(graphs['agreement']['reason'])}"
    return (
        f"Folded against kept: logits differ by at most {graphs['agreement']['value']:.2g} over {graphs['images']} "
        f"images (tolerance {graphs['tolerance']:g})."
    )


def advice(report: Report) -> str:
    """Return what the analysis advises, and whether this run did so; empty where it advises nothing."""
    found, used = report["analysis"]["advice"], report["training"]["student"]["strategy"]
    if found is None:
        return ""
    differs = "" if found["strategy"] in (used, None) else f" This run's student is {used}."
    return f"{found['summary']}.{differs}"


def how_measured(report: Report) -> str:
    """Return the method of timing, and of processor, threads and pinning what the method does not name itself."""
    method, hardware = report["latency_method"].rstrip().rstrip("."), report["hardware"]
    said = [method]
    if report["pinned"] and "bound to CPU" not in method:
        said.append(f"The process was bound to CPU {', '.join(map(str, report['pinned']))}")
    if hardware:
        facts = [f"{hardware['architecture']}, {counted(hardware['cores'], 'core')} for this process to use"]
        if hardware["processor"] not in method:
            facts = [hardware["processor"], *facts, f"{counted(hardware['threads'], 'thread')} a session"]
        if hardware["gpu"] and hardware["gpu"] not in method:
            facts.append(f"GPU {hardware['gpu']}")
        said.append(f"The machine: {', '.join(facts)}")
    return " ".join(f"{one}." for one in said)


def still_falling(report: Report) -> str:
    """Return a sentence on what was timed before its times had stopped falling; empty where all had settled."""
    names = short_names(report)
    moving: dict[str, list[str]] = {}
    for row in report["latency"]:
        if not row["settled"]:
            moving.setdefault(names[key_of(row)], []).append(str(row["batch"]))
    together: dict[str, list[str]] = {}
    for name, batches in moving.items():
        together.setdefault(" and ".join(batches), []).append(name)
    timed = {key_of(row) for row in report["latency"] if row["p50_ms"] is not None}
    which = [
        f"{f'all {len(timed)} artifacts' if len(timed) == len(found) > 1 else ', '.join(found)} at batch {batches}"
        for batches, found in together.items()
    ]
    return f"Times were still falling when warm-up ended, in one session or more: {'; '.join(which)}." if which else ""


def not_drawn(lost: Iterable[tuple[str, str]]) -> list[str]:
    """Return a sentence for each reason, with all that it keeps out of a figure: ``lost`` holds (what, why)."""
    reasons: dict[str, list[str]] = {}
    for what, why in lost:
        names = reasons.setdefault(why, [])
        names += [] if what in names else [what]
    return [stopped(f"Not drawn: {'; '.join(names)}: {why}") for why, names in reasons.items()]


def last_settings(history: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return epochs by training. A training that was begun again with other settings keeps the last lines alone."""
    last = {line.get("training", "training"): line.get("settings") for line in history}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for line in history:
        name = line.get("training", "training")
        if line.get("settings") == last[name] and "epoch" in line:
            found.setdefault(name, []).append(line)
    return {name: sorted(lines, key=lambda line: line["epoch"]) for name, lines in found.items()}
