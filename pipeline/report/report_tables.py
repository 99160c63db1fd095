"""The report's tables: every column is described here, whichever output shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import attrgetter, getitem
from typing import Any

from vitcompress.exporters import targets
from vitcompress.pipeline.report.models import BY_DEFINITION, quantity
from vitcompress.pipeline.report.readings import (
    Report,
    class_losses,
    engine_right,
    key_of,
    machine_of,
    place,
    products,
    speedups,
)
from vitcompress.pipeline.report.table import Cell, Column, Output, Table, Value
from vitcompress.pipeline.report.wording import card_state, gate_limit, gate_value, megabytes, short_count, significant

Row = Mapping[str, Any]

SIGNS = {"pass": "✓", "fail": "✕", "inconclusive": "?", "unmeasured": "–"}
"""Beside the word of a verdict, so that colour is not the only mark."""
_COMPACT = Output.TERMINAL | Output.MARKDOWN
EVERYWHERE = _COMPACT | Output.DETAILS


def at(*path: str) -> Callable[[Row], Any]:
    """Return a column's value that stands in the row at these keys."""
    return lambda row: reduce(getitem, path, row)


def _beside_teacher(value: Callable[[Row], Value]) -> Callable[[Row], Value]:
    """Return a column's value that is a dash for the teacher, with which the others are compared."""
    return lambda row: "-" if row["model"] == "teacher" else value(row)


def terminal_label(row: Row) -> str:
    """Return the row's label cut to fit; ``>`` before the deployed one, which the line above the table names."""
    label: str = row["label"].removeprefix("student ").removesuffix(" (deployed)").removesuffix(" engine")
    return ("> " if row["deployed"] else "  ") + label.replace(",", "").replace("TensorRT-RTX", "RTX")


def _above_teacher(row: Row) -> Value:
    """Return points above (+) or below (-) the teacher."""
    drop: dict[str, Any] = row["drop"]
    return drop if drop["value"] is None else 0.0 - drop["value"]


def cost(key: str, why: str = "cost_reason") -> Callable[[Row], Value]:
    """Return a column's value that is a plain number of the row, its reason beside it."""
    return lambda row: quantity(row[key], reason=row[why])


def _score(row: Row) -> Value:
    return "-" if row["top1"]["reason"] == BY_DEFINITION else row["top1"]


MODELS = (
    Column("model", terminal_label, shown=Output.TERMINAL),
    Column("artifact", at("label")),
    Column("top-1", _score, ".2f", "%", shown=_COMPACT, short="top-1 %"),
    Column("Δ", _beside_teacher(_above_teacher), "+.2f", shown=Output.TERMINAL),
    Column("drop", _beside_teacher(at("drop")), ".2f", "points", shown=Output.MARKDOWN),
    Column("p50, batch 1", at("latency", "1", "p50_ms"), significant, "ms", shown=_COMPACT, short="ms b1"),
    Column(
        "speed-up, batch 1",
        _beside_teacher(at("latency", "1", "speedup")),
        lambda ratio: f"{ratio:.2f}x",
        shown=_COMPACT,
        short="speed-up",
    ),
    Column(
        "over today's teacher",
        _beside_teacher(at("latency", "1", "speedup_deployed")),
        lambda ratio: f"{ratio:.2f}x",
        shown=_COMPACT,
        short="vs today",
    ),
    Column("top-5", at("top5"), ".2f", "%", shown=Output.DETAILS),
    Column(
        "same answer as in torch",
        lambda row: "reference" if row["runtime"] == "torch" else row["agreement"],
        ".2f",
        "% of images",
        shown=Output.DETAILS,
    ),
    Column("calibration error", at("ece"), ".2f", "points", shown=Output.DETAILS),
    Column("parameters", cost("parameters"), short_count, shown=Output.DETAILS),
    Column("MACs", cost("macs"), short_count, shown=Output.DETAILS),
    Column("size", cost("bytes", "bytes_reason"), megabytes, "MB", shown=_COMPACT, short="MB"),
)
_TIMED = ("p50_ms", "p90_ms", "p99_ms", "speedup", "speedup_deployed")
TIMES = (
    Column("artifact", at("label")),
    Column("batch", at("batch"), "d"),
    Column("p50", at("p50_ms"), significant, "ms"),
    Column("p90", at("p90_ms"), significant, "ms"),
    Column("p99", at("p99_ms"), significant, "ms"),
    Column("p50, GPU compute alone", at("gpu"), ".3f", "ms", absent="-"),
    Column("speed-up", _beside_teacher(at("speedup")), ".2f", "x"),
    Column("over today's teacher", _beside_teacher(at("speedup_deployed")), ".2f", "x"),
    Column("images a second", at("rate"), lambda rate: f"{rate:.1f}" if rate < 100 else f"{rate:,.0f}"),
)


def _columns(report: Report) -> Sequence[Column]:
    """Return the columns of models, with what the task is judged by in the place of top-1."""
    label = report["score"]["label"]
    if label == "top-1":
        return MODELS
    columns = [column for column in MODELS if column.name not in ("top-5", "calibration error")]
    columns[2] = replace(columns[2], name=label, short=f"{'agreement' if 'agreement' in label else label} %")
    return columns


def models(report: Report) -> Table:
    """Return the teacher and every artifact by accuracy, latency and cost."""
    lines = [
        "Intervals are 95 %. A drop is against the teacher in torch, a speed-up against it in the same runtime and "
        "precision.",
        f"Measured on {machine_of(report)}.",
        *speedups(report),
    ]
    if not report["score"]["labelled"]:
        lines.append("The teacher in torch agrees with itself by definition: its answers stand for labels.")
    return Table("All artifacts", _columns(report), report["models"], at("deployed"), lines)


def metrics(report: Report) -> Table | None:
    """Return every metric of each artifact that was asked; None where there is no metric."""
    found = {(*key_of(row), row["metric"]): row for row in report["metrics"]}

    def value(metric: str, of: str) -> Callable[[Row], Value]:
        def taken(model: Row) -> Value:
            row = found.get((*key_of(model), metric))
            if row is None:  # the teacher is compared with itself
                return "-" if model["model"] == "teacher" else quantity(None, reason="these images have none")
            return quantity(row.get(of), row.get(f"{of}_low"), row.get(f"{of}_high"), row["reason"])

        return taken if of == "value" else _beside_teacher(taken)

    columns, everywhere = [*MODELS[:2]], EVERYWHERE
    for metric, label in {row["metric"]: row["label"] for row in report["metrics"]}.items():
        columns.append(Column(label, value(metric, "value"), ".2f", "%", everywhere, f"{label} %"))
        if any(row["metric"] == metric and row["drop"] is not None for row in report["metrics"]):
            columns.append(Column(f"drop of {label}", value(metric, "drop"), ".2f", "points"))
    asked = {key_of(row) for row in report["metrics"]}
    rows = [row for row in report["models"] if key_of(row) in asked]
    return Table("Other metrics", columns, rows, at("deployed")) if rows else None


def elsewhere(report: Report, machine: Row) -> Table:
    """Return what another machine measured of the bundle, its name in every row."""
    where = Column("measured on", lambda row: machine["machine"])
    columns = (*MODELS[:2], where, *_columns(report)[2:])
    lines = [f"Latency: {machine['latency_method']}."]
    return Table(f"Measured on {machine['machine']}", columns, machine["models"], at("deployed"), lines)


def times(report: Report) -> Table:
    """Return every artifact at every batch size: time of a call, and images a second."""
    compute = {
        (*key_of(row), str(row["batch"])): row["gpu"]["plain"]["compute"]["p50_ms"]
        for row in report["latency"]
        if row["gpu"]
    }
    rows = []
    for row in report["models"]:
        rates = {batch for batch, rate in row["throughput"].items() if rate["value"] is not None}
        for batch in sorted({*row["latency"], *rates}, key=int):
            cell = row["latency"].get(batch) or dict.fromkeys(_TIMED, "-")
            rate = row["throughput"].get(batch) or quantity(None, reason="throughput was not measured in this run")
            gpu = compute.get((*key_of(row), batch))
            rows.append({**row, **cell, "batch": int(batch), "rate": rate, "gpu": gpu})
    columns = [column for column in TIMES if compute or "GPU" not in column.name]
    lines = ["p50, p90 and p99 are end to end. Intervals are 95 %."]
    return Table("Every artifact at every batch size", columns, rows, lines=lines, tall=True)


def _median(name: str) -> Callable[[Row], Value]:
    return lambda row: quantity(row["parts"] and row["parts"][name]["p50_ms"], reason=row["gpu"]["graph_reason"])


def _with_tail(row: Row) -> Value:
    found = row["parts"] and row["parts"]["latency"]
    if not found or found["p99_ms"] is None:
        return _median("latency")(row)
    return Cell(f"{found['p50_ms']:.3f}", f"(p99 {found['p99_ms']:.3f})", found["p50_ms"])


ON_GPU = (
    Column("engine", at("label")),
    Column("batch", at("batch"), "d"),
    Column("CUDA graph", at("in_graph")),
    Column("Enqueue Time", _median("enqueue"), ".3f"),
    Column("H2D Latency", _median("h2d"), ".3f"),
    Column("GPU Compute Time", _median("compute"), ".3f"),
    Column("D2H Latency", _median("d2h"), ".3f"),
    Column("Latency", _with_tail, ".3f"),
    Column("J an image", at("energy"), significant),
)


def on_gpu(report: Report) -> Table | None:
    """Return the parts of each engine's time on the GPU, in trtexec's terms, and its energy; None without any."""
    labels = {key_of(row): row["label"] for row in report["models"]}
    timed = [
        {**row, "label": labels.get(key_of(row), row["model"]).removesuffix(" engine")}
        for row in report["latency"]
        if row["gpu"]
    ]
    rows, lines = [], ["Each by trtexec's definition of that name. Energy is that of the whole GPU."]
    for row in timed:
        gpu = row["gpu"]
        joules = quantity(gpu["joules"], gpu["joules_low"], gpu["joules_high"], gpu["joules_reason"])
        rows.append({**row, "in_graph": "no", "parts": gpu["plain"], "energy": joules})
        rows.append({**row, "in_graph": "yes", "parts": gpu["graph"], "energy": "-"})
        lines.append(f"{row['label']}, batch {row['batch']}: {card_state(gpu['card'], gpu['watts'])}")
        if row["card"] and row["card"]["disturbed"]:
            lines.append(f"The same, end to end: {row['card']['disturbed']}")
    lines += dict.fromkeys(row["gpu"]["method"] for row in timed)
    return Table("Engines on the GPU: medians, milliseconds", ON_GPU, rows, lines=lines) if rows else None


def _verdict(row: Row) -> Cell:
    return Cell(f"{SIGNS.get(row['verdict'], '')} {row['verdict']}".strip(), style=f"verdict {row['verdict']}")


GATES = (
    Column("gate", lambda row: f"{row['artifact']} {row['label']}"),
    Column("verdict", _verdict),
    Column("limit", gate_limit),
    Column("measured [95 %]", gate_value),
    Column("required", lambda row: "yes" if row["required"] else "no"),
    Column("why", at("why")),
)


def gates(report: Report) -> Table | None:
    """Return every gate of a report, or of another machine in it, with its verdict; None where none was set."""
    return Table("Each limit, and what was measured against it", GATES, report["gates"]) if report["gates"] else None


def classes(report: Report) -> Table | None:
    """Return right answers by class, most lost first; None where they were not counted."""

    def recall(who: str) -> Column:
        right = attrgetter(who)
        return Column(f"{who} recall", lambda one: 100 * right(one) / one.images if one.images else "-", ".1f", "%")

    columns = [
        Column("class", attrgetter("name")),
        Column("images", attrgetter("images"), "d"),
        Column("teacher right", attrgetter("teacher"), "d"),
        Column("student right", attrgetter("student"), "d"),
        recall("teacher"),
        recall("student"),
        Column("lost", attrgetter("points"), "+.1f", "% of its images"),
    ]
    if right := engine_right(report):
        name = " ".join(report["artifacts"]["bundle"]["engine"])
        columns.insert(4, Column(f"{name} right", lambda one: right[one.name], "d"))
    if not report["score"]["labelled"]:
        columns = [column for column in columns if "teacher" not in column.name]
    rows = class_losses(report)
    return Table("By class, most lost first", columns, rows, tall=True) if rows else None


def confused(report: Report, most: int) -> Table | None:
    """Return the classes that are taken for one another most often; None where no image is answered wrongly."""
    counts: list[dict[tuple[int, int], int]] = [{}, {}]
    for one in report["confusions"]:
        counts[one["model"] == "teacher"] = {(label, answer): count for label, answer, count in one["cells"]}
    student, teacher = counts
    rows = sorted({**student, **teacher}, key=lambda cell: (-student.get(cell, 0), -teacher.get(cell, 0), cell))
    columns = [
        Column("class", lambda cell: report["class_names"][cell[0]]),
        Column("taken for", lambda cell: report["class_names"][cell[1]]),
        Column("images of the class", lambda cell: report["class_images"][cell[0]], "d"),
        Column("by the student", lambda cell: student.get(cell, 0), "d"),
        Column("by the teacher", lambda cell: teacher.get(cell, 0), "d"),
    ]
    return Table("Most confused, by the deployed student", columns, rows[:most], tall=True) if rows else None


def precisions(report: Report) -> Table:
    """Return the deployed graph in every precision: how it was made, how far it is from fp32, whether it is shipped."""
    made = report["artifacts"]

    def reduction(key: str) -> Callable[[Row], Value]:
        return lambda row: (
            quantity(row["reduced"][key], reason=row["reduced"]["measured"] or "nothing was compared")
            if row["reduced"]
            else "reference"
        )

    rows = [
        {**made["student"][made["deployed"]], "precision": "fp32", "reduced": None},
        *({**one, "precision": precision} for precision, one in made["reduced"].items()),
    ]
    columns = [
        Column("ONNX", at("precision")),
        Column("made by", lambda row: row["reduced"]["method"] if row["reduced"] else "torch, exported"),
        Column("logits differ, of their spread", reduction("difference"), ".2g"),
        Column(
            f"same {'top-1' if report['score']['label'] == 'top-1' else 'largest output'}, share",
            reduction("agreement"),
            ".4g",
        ),
        Column("matrix products in", lambda row: products(row["operators"])),
        Column("size", at("megabytes"), ".2f", "MB"),
        Column("in the bundle", lambda row: place(report, "onnx", row["precision"])),
    ]
    lines = [f"No {precision}: {why}" for precision, why in made["missing"].items()]
    return Table("The deployed graph in each precision", columns, rows, lines=lines)


def _as_built(row: Row) -> str:
    """Return what the graph's products compute in in the engine, and how much of the engine was traced to the graph."""
    trace = row["trace"]
    if trace is None:
        layers = products(row["built_layers"] or {})
        return "not told" if (row["status"], layers) == ("built", "-") else layers
    found = ", ".join(f"{count} {precision}" for precision, count in trace["products"].items())
    return f"{found}; {trace['layers'] - trace['untraced']} of {trace['layers']} layers traced"


def _otherwise(row: Row) -> list[str]:
    """Return a line on each way in which products of an engine are not what its graph asks."""
    trace = row["trace"] or {"otherwise": {}}
    lines = []
    for words in dict.fromkeys(trace["otherwise"].values()):
        nodes = [node for node, found in trace["otherwise"].items() if found == words]
        more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
        total = sum(trace["products"].values())
        lines.append(
            f"{row['of']}{row['flavour']} {row['precision']}, {len(nodes)} of {total} matrix products: {words} "
            f"({', '.join(nodes[:3])}{more})."
        )
    return lines


def engines(report: Report) -> Table | None:
    """Return what targets besides ONNX Runtime built, or not; None where nothing was asked of them."""
    made = report["artifacts"]
    rows = [
        one | {"of": who} for who, name in (("", "engines"), ("teacher, ", "teacher_engines")) for one in made[name]
    ]

    def hardware(row: Row) -> str:
        source = f" ({row['hardware_source']})" if row["hardware_source"] else ""
        target = targets.BUILT_IN.get(row["flavour"])
        absent = "CPU" if target is not None and target.runs_on == "cpu" else "-"
        return (", ".join(row["hardware"]) + source) or absent

    def difference(row: Row) -> float | None:
        return max((row.get("max_logit_difference") or {}).values(), default=None)

    def bundled(row: Row) -> str:
        built = row["status"] == "built"
        if built and row["of"]:
            return "no: to compare with"
        return place(report, row["flavour"], row["precision"]) if built else f"not built: {row['reason']}"

    columns = [
        Column("target", lambda row: f"{row['of']}{row['flavour']} {row['version'] or ''}".strip()),
        Column("precision", at("precision")),
        Column("graph's products in", lambda row: products(row["layers"])),
        Column("as built", _as_built),
        Column("runs on", hardware),
        Column("from torch", difference, ".2g", absent="-"),
        Column("size", lambda row: row["file"] and row["file"]["bytes"], megabytes, "MB", absent="-"),
        Column("in the bundle", bundled),
    ]
    tf32 = ["float32 products may be rounded to TF32 on the way, TensorRT's default."]
    lines = [*(tf32 if any(row["tf32"] for row in rows) else []), *(line for row in rows for line in _otherwise(row))]
    return Table("What targets besides ONNX Runtime built", columns, rows, lines=lines) if rows else None
