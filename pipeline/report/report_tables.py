"""The report's tables: every column is described here, whichever output shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, reduce
from operator import getitem, methodcaller
from typing import Any

from vitcompress.pipeline.report.models import quantity
from vitcompress.pipeline.report.readings import (
    EARLIER,
    ClassLoss,
    Report,
    class_losses,
    key_of,
    last_settings,
    place,
    products,
    short_names,
)
from vitcompress.pipeline.report.table import Cell, Column, Output, Table, Value
from vitcompress.pipeline.report.wording import gate_limit, interval, megabytes, ms, short_count, some

Row = Mapping[str, Any]

SIGNS = {"pass": "✓", "fail": "✕", "inconclusive": "?", "unmeasured": "–"}
"""Beside the word of a verdict, so that colour is not the only mark."""
CLASSES_SHOWN = 12
"""Classes shown unfolded where there are more than twice as many."""
NORMS = (
    "Norm of each term's gradient at the first batch of an epoch, on the block where all terms meet. It says how hard "
    "a term pulls; its share does not."
)
_COMPACT = Output.TERMINAL | Output.MARKDOWN | Output.PAGE
_LONG = Output.DETAILS | Output.PAGE
_NAMES_SHOWN = 4


def at(*path: str) -> Callable[[Row], Any]:
    """Return a column's value that stands in the row at these keys."""
    return lambda row: reduce(getitem, path, row)


def _beside_teacher(value: Callable[[Row], Value], word: str = "reference") -> Callable[[Row], Value]:
    """Return a column's value that is a word for the teacher, with which the others are compared."""
    return lambda row: word if row["model"] == "teacher" else value(row)


def _terminal_label(row: Row) -> str:
    """Return the row's label cut to fit; ``>`` before the deployed one, which the line above the table names."""
    label: str = row["label"].removeprefix("student ").removesuffix(" (deployed)").removesuffix(" engine")
    return ("> " if row["deployed"] else "  ") + label.replace(",", "").replace("TensorRT-RTX", "RTX")


def _above_teacher(row: Row) -> Value:
    """Return points above (+) or below (-) the teacher."""
    drop: dict[str, Any] = row["drop"]
    return drop if drop["value"] is None else 0.0 - drop["value"]


def _agreement(row: Row) -> Value:
    return at("agreement")(row) if row["runtime"] != "torch" else "reference"


ARTIFACT = Column("artifact", at("label"))
BATCH = Column("batch", at("batch"), "d")
AGREEMENT = Column("same answer as in torch", _agreement, ".2f", "% of images", shown=_LONG)
CALIBRATION = Column("calibration error", at("ece"), ".2f", "points", shown=_LONG)


def models(report: Report) -> Table:
    """Return the teacher and every artifact by accuracy, latency and cost."""
    others = [batch for batch in report["models"][0]["latency"] if batch != "1"]

    def cost(key: str, why: str = "cost_reason") -> Callable[[Row], Value]:
        return lambda row: quantity(row[key], reason=row[why])

    columns = [
        Column("model", _terminal_label, shown=Output.TERMINAL),
        ARTIFACT,
        Column("top-1", at("top1"), ".2f", "%", shown=_COMPACT, short="top-1 %"),
        Column("top-5", at("top5"), ".2f", "%", shown=_LONG),
        Column("Δ teacher", _beside_teacher(_above_teacher, "-"), "+.2f", shown=Output.TERMINAL),
        Column("drop", _beside_teacher(at("drop")), ".2f", "points", shown=Output.MARKDOWN | Output.PAGE),
        Column("p50, batch 1", at("latency", "1", "p50_ms"), ms, "ms", shown=_COMPACT, short="ms b1"),
        *(
            Column(f"p50, batch {batch}", at("latency", batch, "p50_ms"), ms, "ms", shown=Output.PAGE)
            for batch in others
        ),
        Column(
            "speed-up, batch 1",
            _beside_teacher(at("latency", "1", "speedup")),
            ".2f",
            "x",
            shown=Output.MARKDOWN | Output.PAGE,
        ),
        Column(
            "speed-up",
            _beside_teacher(at("latency", "1", "speedup"), "-"),
            lambda ratio: f"{ratio:.2f}x",
            shown=Output.TERMINAL,
        ),
        replace(AGREEMENT, shown=Output.DETAILS),  # on the page in a table of their own
        replace(CALIBRATION, shown=Output.DETAILS),
        Column("parameters", cost("parameters"), short_count, shown=Output.TERMINAL | _LONG, short="params"),
        Column("MACs", cost("macs"), short_count, shown=_LONG),
        Column("memory, peak (ONNX: on the CPU)", at("memory"), megabytes, "MB", shown=Output.DETAILS),
        Column("size", cost("bytes", "bytes_reason"), megabytes, "MB", shown=_COMPACT, short="MB"),
    ]
    lines = ["Intervals are 95 %. A drop and a speed-up are against the teacher."]
    return Table("All artifacts", columns, report["models"], at("deployed"), lines)


def times(report: Report) -> Table:
    """Return every artifact at every batch size: time of a call, and images a second."""
    timed = {(key_of(row), str(row["batch"])): row for row in report["latency"]}
    on_gpu = [row for row in report["latency"] if row["gpu_p50_ms"] is not None]
    rows = []
    for row in report["models"]:
        rates = {batch for batch, rate in row["throughput"].items() if rate["value"] is not None}
        for batch in sorted({*row["latency"], *rates}, key=int):
            cell = row["latency"].get(batch) or dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "speedup"), "-")
            rate = row["throughput"].get(batch) or quantity(None, reason="throughput was not measured in this run")
            found = timed.get((key_of(row), batch), {})
            rows.append({**row, **cell, "batch": int(batch), "rate": rate, "timed": found})
    columns = [
        ARTIFACT,
        BATCH,
        Column("p50", at("p50_ms"), ms, "ms"),
        Column("p90", at("p90_ms"), ms, "ms"),
        Column("p99", at("p99_ms"), ms, "ms"),
        Column("speed-up", _beside_teacher(at("speedup")), ".2f", "x"),
        Column("images a second", at("rate"), lambda rate: f"{rate:.1f}" if rate < 100 else f"{rate:,.0f}"),
        Column("samples", lambda row: row["timed"].get("samples", 0), "d", shown=Output.PAGE),
        Column("medians of the sessions", _sessions, unit="ms", shown=Output.PAGE),
    ]
    if on_gpu:
        columns.insert(5, Column("p50, GPU compute alone", lambda row: row["timed"].get("gpu_p50_ms"), ".3f", "ms"))
    lines = ["p50, p90 and p99 are end to end. Intervals are 95 %.", *(row["gpu_method"] for row in on_gpu[:1])]
    return Table("Every artifact at every batch size", columns, rows, lines=lines, tall=True)


def _sessions(row: Row) -> Value:
    if row["p50_ms"] == "-" or row["p50_ms"]["value"] is None:
        return row["p50_ms"]  # type: ignore[no-any-return]
    found = row["timed"].get("session_p50_ms") or ()
    return ", ".join(f"{value:.4g}" for value in found) or quantity(None, reason=EARLIER)


def memory(report: Report) -> Table | None:
    """Return the peak memory of a process that runs one artifact; None where nothing was measured."""
    names = short_names(report)
    no_gpu = "no GPU memory is recorded for it, as for all that run on a CPU"

    def own(row: Row) -> float | None:
        peak, empty = row["peak_rss_bytes"], row["empty_rss_bytes"]
        return None if peak is None or empty is None else peak - empty

    columns = [
        Column("artifact", lambda row: names[key_of(row)]),
        BATCH,
        Column("peak", lambda row: quantity(row["peak_rss_bytes"], reason=row["reason"]), megabytes, "MB"),
        Column("its own", lambda row: quantity(own(row), reason=row["reason"]), megabytes, "MB"),
        Column("GPU", lambda row: quantity(row["gpu_bytes"], reason=row["reason"] or no_gpu), megabytes, "MB"),
    ]
    caption = (
        "Most resident memory of a process that runs this artifact alone, an ONNX file on the CPU; its own is that "
        "less what a process takes that only loads the runtime"
    )
    return Table(caption, columns, report["memory"]) if report["memory"] else None


def agreement(report: Report) -> Table:
    """Return how often each artifact answers as the same network in torch, and how far its confidence is right."""
    caption = "Exported files against their own network in torch, and confidence against truth; intervals are 95 %"
    return Table(caption, [ARTIFACT, AGREEMENT, CALIBRATION], report["models"])


def _measured(row: Row) -> Cell:
    """Return four significant digits, so that a value just beyond its limit does not read as equal to it."""
    if row["value"] is None:
        return Cell("unmeasured", style="missing")
    return Cell(f"{row['value']:.4g} {row['unit']}".strip(), interval(row, ".4g").strip(), row["value"])


def _property(name: str, row: Row) -> str:
    value = row[name]
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


GATES = (
    Column("gate", lambda row: f"{row['artifact']} {row['label']}"),
    Column("verdict", lambda row: Cell(f"{SIGNS.get(row['verdict'], '')} {row['verdict']}".strip(), "", None,
                                       f"verdict {row['verdict']}")),
    Column("limit", gate_limit),
    Column("measured [95 %]", _measured),
    Column("required", lambda row: "yes" if row["required"] else "no"),
    Column("why", at("why")),
    *(
        Column(name, partial(_property, name), shown=Output.JUNIT)
        for name in ("gate", "artifact", "limit", "value", "low", "high", "unit", "verdict", "required")
    ),
)  # fmt: skip


def gates(report: Report) -> Table | None:
    """Return every gate with its verdict; None where none was set."""
    return Table("Each limit, and what was measured against it", GATES, report["gates"]) if report["gates"] else None


def graphs(report: Report) -> Table | None:
    """Return the projector kept against folded away; None where there is one graph."""
    columns = [
        Column("graph", lambda row: row["graph"] + (" (deployed)" if row["deployed"] else "")),
        Column("parameters", at("parameters"), ",d"),
        Column("MACs", at("macs"), short_count),
        Column("ONNX nodes", at("nodes"), "d"),
        Column("size", at("bytes"), megabytes, "MB"),
        Column("p50, batch 1", lambda row: row["latency"]["1"]["p50_ms"] if row["latency"] else None, ms, "ms"),
    ]
    rows = report["graphs"]["rows"]
    caption = "The projector kept as operators, and folded away"
    return Table(caption, columns, rows, at("deployed")) if len(rows) > 1 else None


def classes(report: Report) -> list[Table]:
    """Return right answers by class, most lost first; where there are many, those that lost most and then all."""

    def right(key: str) -> Callable[[ClassLoss], float | None]:
        return lambda one: 100 * getattr(one, key) / one.images if one.images else None

    def lost(one: ClassLoss) -> Cell:
        count = one.teacher - one.student
        if not count:
            return Cell("0" if one.images else "-", sort=0.0)
        return Cell(f"{one.points:+.1f}", f"{count:+d} image{'' if abs(count) == 1 else 's'}", one.points)

    columns = [
        Column("class", lambda one: one.name),
        Column("images", lambda one: one.images, "d"),
        Column("teacher right", right("teacher"), ".1f", "%", absent="-"),
        Column("student right", right("student"), ".1f", "%", absent="-"),
        Column("lost", lost, ".1f", "points"),
    ]
    rows, _ = class_losses(report)
    if len(rows) <= 2 * CLASSES_SHOWN:
        return [Table("By class, most lost first", columns, rows)] if rows else []
    return [
        Table(f"The {CLASSES_SHOWN} classes that lost most", columns, rows[:CLASSES_SHOWN]),
        Table(f"All {len(rows)} classes, most lost first", columns, rows, tall=True),
    ]


def precisions(report: Report) -> Table:
    """Return the deployed graph in every precision: how it was made, how far it is from fp32, whether it is shipped."""
    made = report["artifacts"]

    def reduction(key: str) -> Callable[[Row], Value]:
        return lambda row: (
            quantity(row["reduced"][key], reason=row["reduced"]["measured"] or "nothing was compared")
            if row["reduced"]
            else "reference"
        )

    def method(row: Row) -> str:
        how = row["reduced"]
        return "; ".join(filter(None, [how["method"], how["calibration"]])) if how else "torch, exported"

    def kept(row: Row) -> str:
        return some(row["reduced"]["kept_fp32"], _NAMES_SHOWN) or "nothing more" if row["reduced"] else "-"

    rows = [
        {**made["student"][made["deployed"]], "precision": "fp32", "reduced": None},
        *({**one, "precision": precision} for precision, one in made["reduced"].items()),
    ]
    columns = [
        Column("ONNX", at("precision")),
        Column("made by", method),
        Column("logits differ, of their spread", reduction("difference"), ".2g"),
        Column("same top-1, share", reduction("agreement"), ".4g"),
        Column("left in fp32", kept),
        Column("matrix products in", lambda row: products(row["operators"])),
        Column("size", at("megabytes"), ".2f", "MB"),
        Column("in the bundle", lambda row: place(report, "onnx", row["precision"])),
    ]
    lines = [f"No {precision}: {why}" for precision, why in made["missing"].items()]
    return Table("The deployed graph in each precision", columns, rows, lines=lines)


def engines(report: Report) -> Table | None:
    """Return TensorRT engines, built or not; None where none was asked for."""
    rows = report["artifacts"]["engines"]

    def built(value: Callable[[Row], Value]) -> Callable[[Row], Value]:
        return lambda row: value(row) if row["status"] == "built" else None

    def hardware(row: Row) -> str:
        source = f" ({row['hardware_source']})" if row["hardware_source"] else ""
        return (", ".join(row["hardware"]) + source) or "-"

    def bundled(row: Row) -> str:
        built = row["status"] == "built"
        return place(report, row["flavour"], row["precision"]) if built else f"not built: {row['reason']}"

    columns = [
        Column("engine", lambda row: f"{row['flavour']} {row['version'] or ''}".strip()),
        Column("precision", at("precision")),
        Column("graph's products in", built(lambda row: products(row["layers"])), absent="-"),
        Column("as built", built(lambda row: products(row["built_layers"] or {})), absent="-"),
        Column("runs on", hardware),
        Column("batch", built(lambda row: f"{row['min_batch']} to {row['max_batch']}"), absent="-"),
        Column("built in", built(at("seconds")), ".1f", "s", absent="-"),
        Column("size", lambda row: row["file"] and row["file"]["bytes"], megabytes, "MB", absent="-"),
        Column("in the bundle", bundled),
    ]
    tf32 = ["float32 products may be rounded to TF32 on the way, TensorRT's default."]
    lines = tf32 if any(row["tf32"] for row in rows) else []
    return Table("What each engine computes in, and runs on", columns, rows, lines=lines) if rows else None


def bundle(report: Report) -> Table:
    """Return the files of the bundle."""
    columns = [
        Column("file", at("path")),
        Column("bytes", at("bytes"), ",d"),
        Column("SHA-256", at("sha256")),
    ]
    return Table("Files of the bundle", columns, report["artifacts"]["bundle"]["files"], tall=True)


def terms(report: Report) -> Table | None:
    """Return the terms of the student's loss in its first and last epoch; None for fewer than two, or an old report."""
    found = report["training"]["distill"]

    def part(name: str, key: str, form: str | Callable[[float], str] = ".3g") -> Column:
        return Column(name, lambda term: (found.get(key) or {}).get(term), form, absent="-")

    columns = [
        Column("term", str),
        part("share, first epoch", "first_shares", lambda share: f"{share:.1%}".replace("%", " %")),
        part("share, last epoch", "shares", lambda share: f"{share:.1%}".replace("%", " %")),
        part("gradient, first", "first_gradient_norms"),
        part("gradient, last", "gradient_norms"),
        part("factor", "scales"),
    ]
    rows = list(found.get("shares") or {})
    lines = [f"{NORMS} Factor: what a balanced term's weight was multiplied by."]
    return Table("Terms of the student's loss", columns, rows, lines=lines) if len(rows) > 1 else None


def epochs(report: Report) -> dict[str, Table]:
    """Return the epochs of each training, by its name."""

    columns = [
        Column("epoch", at("epoch"), "d"),
        Column("loss", methodcaller("get", "loss"), ".4g", absent="-"),
        Column("top-1 raw", methodcaller("get", "val_top1_raw"), ".2f", "%", absent="-"),
        Column("top-1 averaged", methodcaller("get", "val_top1_ema"), ".2f", "%", absent="-"),
        Column("learning rate", methodcaller("get", "lr"), ".3g", absent="-"),
    ]
    return {
        name: Table(f"Training of the {name}, by epoch", columns, lines, tall=True)
        for name, lines in last_settings(report["history"]).items()
    }


def recommendations(report: Report) -> Table | None:
    """Return what the teacher's features advise, and why; None where nothing was analysed."""

    def measures(entry: Row) -> str:
        """Return how many ways of measuring give the answer: ``3 of 4; images alone 1.00``; ``-`` where unknown."""
        answers = entry.get("answers") or {}
        agreeing = sum(answer == entry["value"] for answer in answers.values())
        return f"{agreeing} of {len(answers)}; images alone {entry['sampling']:.2f}" if answers else "-"

    columns = [
        Column("question", at("what")),
        Column("advice", lambda entry: entry["value"] or "nothing"),
        Column("confidence", at("confidence"), ".2f", absent="-"),
        Column("measures", measures),
        Column("why", at("reason")),
        Column("source", at("source")),
    ]
    found = report["analysis"]["advice"]
    return Table("What the teacher's features advise", columns, found["recommendations"]) if found else None
