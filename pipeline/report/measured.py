"""Markdown of everything that was measured: each model at each batch size, images that flip, classes that lost."""

from __future__ import annotations

from typing import Any

from vitcompress.pipeline.report.models import MEGABYTE
from vitcompress.pipeline.report.wording import (
    Footnotes,
    code,
    interval,
    megabytes,
    millions,
    milliseconds,
    number,
    plain,
    table,
)

LOSERS = 5
"""Classes named."""
NO_FLIPS = "which images flip was not recorded; `compress verify RUN` records it"


def models(report: dict[str, Any]) -> str:
    """Accuracy, cost and memory by model, times by model and batch size; reasons for missing numbers below."""
    notes = Footnotes()
    accuracy = table(
        [
            "artifact",
            "top-5 %",
            "agreement with torch, %",
            "ECE, points",
            "parameters",
            "MACs",
            "memory, peak (ONNX: on the CPU)",
        ],
        [
            [
                plain(row["label"]),
                number(row["top5"], ".2f", notes),
                number(row["agreement"], ".2f", notes) + interval(row["agreement"], ".2f"),
                number(row["ece"], ".2f", notes),
                millions(row["parameters"], row["cost_reason"], notes),
                millions(row["macs"], row["cost_reason"], notes),
                megabytes(row["memory"]["value"], row["memory"]["reason"], notes),
            ]
            for row in report["models"]
        ],
    )
    times = table(
        ["artifact", "batch", "p50 ms [95 %]", "p90 ms", "p99 ms", "speed-up [95 %]", "images a second"],
        [_times(row, batch, notes) for row in report["models"] for batch in row["latency"]],
    )
    below = [f"- {plain(line)}" for line in notes.lines()]
    method = f"Intervals are 95 %. Latency: {plain(report['latency_method'])}"
    return "\n".join([accuracy, "", times, "", *below, *([""] if below else []), method, *_not_warm(report)])


def _not_warm(report: dict[str, Any]) -> list[str]:
    """What was timed before its times had stopped falling, in a sentence; nothing where nothing was."""
    found = [f"{row['runtime']} at batch {row['batch']}" for row in report["latency"] if not row["settled"]]
    told = ", ".join(dict.fromkeys(found))
    return [f"Times were still falling when warm-up ended, in one session or more: {told}."] if found else []


def _times(row: dict[str, Any], batch: str, notes: Footnotes) -> list[str]:
    cell = row["latency"][batch]
    none = {"value": None, "reason": "throughput was not measured in this run"}
    rate = row["throughput"].get(batch, none)
    form = ".2f" if (cell["p50_ms"]["value"] or 0) >= 10 else ".3f"
    is_teacher = row["model"] == "teacher"
    return [
        plain(row["label"]),
        batch,
        milliseconds(cell["p50_ms"], notes) + interval(cell["p50_ms"], form),
        milliseconds(cell["p90_ms"], notes),
        milliseconds(cell["p99_ms"], notes),
        "reference" if is_teacher else number(cell["speedup"], ".2f", notes) + interval(cell["speedup"], ".2f"),
        number(rate, ".1f" if (rate["value"] or 0) < 100 else ",.0f", notes),
    ]


def flips(report: dict[str, Any]) -> str:
    """One sentence on the images that the deployed artifact answers otherwise than the teacher, one on its classes."""
    row = next(row for row in report["models"] if row["deployed"])
    found = next((one for one in report["flips"] if _place(one) == _place(row)), None)
    if found is None:
        return f"Flips: {NO_FLIPS}."
    counted = (
        f"Against the teacher it lost {found['lost']} images (teacher right, it wrong) and won {found['won']}; "
        f"{found['other']} more are wrong in another way."
    )
    return " ".join(filter(None, [counted, _losers(report, row)]))


def _losers(report: dict[str, Any], row: dict[str, Any]) -> str:
    """The classes that lost most against the teacher, by share of their images."""
    rights = {_place(one): one["class_right"] for one in report["accuracy"]}
    teacher = rights.get(("teacher", "torch", "fp32")) or rights.get(("teacher", "onnx", "fp32")) or []
    own = rights.get(_place(row)) or []
    names, images = report["class_names"], report["class_images"]
    if not teacher or not (len(teacher) == len(own) == len(names) == len(images)):
        return ""
    lost = [index for index in range(len(own)) if teacher[index] > own[index]]
    lost.sort(key=lambda index: (own[index] - teacher[index]) / images[index])
    if not lost:
        return "No class has fewer right answers than with the teacher."
    named = [f"{code(names[one])} {teacher[one]} to {own[one]} of {images[one]}" for one in lost[:LOSERS]]
    more = f", and {len(lost) - LOSERS} more" if len(lost) > LOSERS else ""
    return f"Right answers by class, largest losses: {', '.join(named)}{more}."


def _place(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["model"], row["runtime"], row["precision"]


def graphs(report: dict[str, Any]) -> str:
    """The projector kept against folded away."""
    found, notes = report["graphs"], Footnotes()
    rows = []
    for row in found["rows"]:
        nothing = {"1": {"p50_ms": {"value": None, "reason": "not measured in this run"}}}
        latency = row["latency"] or nothing
        rows.append(
            [
                row["graph"] + (" (deployed)" if row["deployed"] else ""),
                f"{row['parameters']:,}",
                millions(row["macs"], "", notes),
                str(row["nodes"]),
                f"{row['bytes'] / MEGABYTE:.2f} MB",
                milliseconds(latency["1"]["p50_ms"], notes),
            ]
        )
    body = table(["graph", "parameters", "MACs", "ONNX nodes", "size", "p50 ms, batch 1"], rows)
    agreement = found["agreement"]
    agree = (
        f"Folded against kept: logits differ by at most {agreement['value']:.2g} over {found['images']} images "
        f"(tolerance {found['tolerance']:g})."
        if agreement["value"] is not None
        else f"Folded against kept: unmeasured: {plain(agreement['reason'])}"
    )
    below = [f"- {plain(line)}" for line in notes.lines()]
    why = f"Deployed: {report['artifacts']['deployed']} ({plain(report['artifacts']['deployed_why'])})."
    return "\n".join([body, "", *below, *([""] if below else []), agree, why])
