"""Tables of what was measured: models, gates, the projector's two graphs, agreement and calibration."""

from __future__ import annotations

from typing import Any

from vitcompress.pipeline.report.html.names import key_of
from vitcompress.pipeline.report.html.parts import Cell, Column, Table, columns, number_cell, quantity_cell
from vitcompress.pipeline.report.wording import Footnotes, gate_limit, interval, megabytes, millions

_EARLIER = "records of earlier versions of this program hold none"
SIGNS = {"pass": "✓", "fail": "✕", "inconclusive": "?", "unmeasured": "–"}
"""Beside the word of a verdict, so that colour is not the only mark."""


def models_table(report: dict[str, Any]) -> Table:
    """Every artifact by accuracy, latency and cost."""
    notes = Footnotes()
    batches = list(report["models"][0]["latency"])
    head = [Column("artifact"), Column("top-1, %", True), Column("drop, points", True)]
    head += [Column(f"p50, ms, batch {batch}", True) for batch in batches]
    head += [Column(title, True) for title in ("speed-up, batch 1", "parameters", "MACs", "size")]
    rows = [_model(row, batches, notes) for row in report["models"]]
    strong = frozenset(index for index, row in enumerate(report["models"]) if row["deployed"])
    return Table("All artifacts; intervals are 95 %", head, rows, notes.lines(), strong)


def _model(row: dict[str, Any], batches: list[str], notes: Footnotes) -> list[Cell]:
    is_teacher = row["model"] == "teacher"
    reference = Cell("reference")
    latencies = [row["latency"][batch]["p50_ms"] for batch in batches]
    return [
        Cell(row["label"]),
        quantity_cell(row["top1"], ".2f", notes),
        reference if is_teacher else quantity_cell(row["drop"], ".2f", notes),
        *(quantity_cell(given, ".2f" if (given["value"] or 0) >= 10 else ".3f", notes) for given in latencies),
        reference if is_teacher else quantity_cell(row["latency"]["1"]["speedup"], ".2f", notes),
        Cell(millions(row["parameters"], row["cost_reason"], notes), sort=row["parameters"]),
        Cell(millions(row["macs"], row["cost_reason"], notes), sort=row["macs"]),
        Cell(megabytes(row["bytes"], row["bytes_reason"], notes), sort=row["bytes"]),
    ]


def gates_table(report: dict[str, Any]) -> Table | None:
    """Every gate with its verdict; None where none was set."""
    if not report["gates"]:
        return None
    rows = [
        [
            Cell(f"{row['artifact']} {row['label']}"),
            Cell(f"{SIGNS.get(row['verdict'], '')} {row['verdict']}", kind=f"verdict {row['verdict']}"),
            Cell(gate_limit(row)),
            _measured(row),
            Cell("yes" if row["required"] else "no"),
            Cell(row["why"]),
        ]
        for row in report["gates"]
    ]
    titles = ("gate", "verdict", "limit", "measured, 95 %", "required", "why")
    return Table("Each limit, and what was measured against it", columns(*titles, words=titles), rows)


def _measured(row: dict[str, Any]) -> Cell:
    """Four significant digits, so that a value just beyond its limit does not read as equal to it."""
    if row["value"] is None:
        return Cell("unmeasured", kind="missing")
    return Cell(f"{row['value']:.4g} {row['unit']}".strip(), interval(row, ".4g").strip(), row["value"])


def graphs_table(report: dict[str, Any]) -> Table | None:
    """The projector kept against folded away; None where there is one graph."""
    graphs, notes = report["graphs"]["rows"], Footnotes()
    if len(graphs) < 2:
        return None
    nothing = {"value": None, "low": None, "high": None, "reason": "not measured in this run"}
    rows = [
        [
            Cell(row["graph"] + (" (deployed)" if row["deployed"] else "")),
            Cell(f"{row['parameters']:,}", sort=row["parameters"]),
            Cell(millions(row["macs"], "", notes), sort=row["macs"]),
            Cell(str(row["nodes"]), sort=row["nodes"]),
            Cell(megabytes(row["bytes"], "", notes), sort=row["bytes"]),
            quantity_cell(row["latency"]["1"]["p50_ms"] if row["latency"] else nothing, ".4g", notes),
        ]
        for row in graphs
    ]
    titles = ("graph", "parameters", "MACs", "ONNX nodes", "size", "p50, ms, batch 1")
    strong = frozenset(index for index, row in enumerate(graphs) if row["deployed"])
    return Table("The projector kept as operators, and folded away", columns(*titles), rows, notes.lines(), strong)


def agreement_table(report: dict[str, Any]) -> Table:
    """How often each artifact answers as the same network in torch, and how far its confidence can be believed."""
    notes = Footnotes()
    labels = {key_of(row): row["label"] for row in report["models"]}
    rows = []
    for row in report["accuracy"]:
        lacking = row["reason"] or _EARLIER
        agreement = (
            Cell("reference")
            if row["runtime"] == "torch"
            else _with_interval(row["agreement"], row["agreement_low"], row["agreement_high"], lacking, notes)
        )
        label = labels.get(key_of(row), " ".join(key_of(row)))
        rows.append([Cell(label), agreement, number_cell(row["ece"], ".2f", lacking, notes)])
    head = columns("artifact", "same answer as in torch, % of images", "calibration error, points")
    return Table(
        "Exported files against their own network in torch, and confidence against truth", head, rows, notes.lines()
    )


def _with_interval(value: float | None, low: float | None, high: float | None, reason: str, notes: Footnotes) -> Cell:
    cell = number_cell(value, ".2f", reason, notes)
    return cell if value is None else Cell(cell.text, interval({"low": low, "high": high}, ".2f").strip(), value)
