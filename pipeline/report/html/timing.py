"""Latency as it was distributed, at each batch size."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from pipeline.report.html.names import deployed_key, key_of, look_of, short_names
from pipeline.report.html.parts import Cell, Figure, Table, columns, not_drawn, number_cell
from pipeline.report.html.svg import Canvas, Scale, padded, shortened
from pipeline.report.wording import Footnotes

WIDTH = 400
_LEFT, _RIGHT = 12, WIDTH - 12
_ROW = 46
_QUANTILES = 21
"""Minimum, 5th, 10th, ... 95th percentile, maximum (LatencyRow.quantiles_ms)."""
_EARLIER = "records of earlier versions of this program hold none"


def latency_figures(report: dict[str, Any]) -> list[Figure]:
    """One figure for each batch size at which something was timed, a strip for each artifact."""
    batches = sorted({row["batch"] for row in report["latency"] if row["p50_ms"] is not None})
    return [_latency_figure(report, batch) for batch in batches]


def _latency_figure(report: dict[str, Any], batch: int) -> Figure:
    rows = [row for row in report["latency"] if row["batch"] == batch]
    measured = [row for row in rows if row["p50_ms"] is not None]
    full = all(len(row["quantiles_ms"]) == _QUANTILES for row in measured)
    drawn = "Each strip is relative to that artifact's own median, which stands at its right. " + (
        "The thin line runs from the 5th to the 95th percentile, the box from the 25th to the 75th, the upright line "
        "is the median"
        if full
        else "The upright line is the median, the thin line runs to the 90th percentile and, where known, the 99th"
    )
    sessions = any(row["session_p50_ms"] for row in measured)
    names = short_names(report["latency"])
    notes = not_drawn([(names[key_of(row)], row["reason"]) for row in rows if row["p50_ms"] is None])
    if not full:
        notes.append(f"Not all of these times have their whole distribution here: {_EARLIER}.")
    unsettled = [names[key_of(row)] for row in measured if not row["settled"]]
    if unsettled:
        notes.append(f"Times were still falling when warm-up ended: {', '.join(unsettled)}.")
    return Figure(
        title=f"Latency at batch {batch}",
        drawings=[_strips(report, measured, batch, names)],
        caption=drawn + (", each dot below the median of one session." if sessions else "."),
        table=_latency_table(measured, names),
        notes=notes,
    )


def _latency_table(rows: list[dict[str, Any]], names: dict[tuple[str, str, str], str]) -> Table:
    marks, body = Footnotes(), []
    for row in rows:
        cells = [Cell(names[key_of(row)])]
        cells += [
            number_cell(row[key], ".4g", "too few samples for this percentile", marks)
            for key in ("p50_ms", "p90_ms", "p99_ms")
        ]
        sessions = ", ".join(f"{value:.4g}" for value in row["session_p50_ms"])
        body.append([*cells, Cell(str(row["samples"]), sort=row["samples"]), Cell(sessions or marks.mark(_EARLIER))])
    head = columns("artifact", "p50", "p90", "p99", "samples", "medians of the sessions")
    return Table("Latency, ms", head, body, marks.lines())


def _strips(
    report: dict[str, Any], rows: list[dict[str, Any]], batch: int, names: dict[tuple[str, str, str], str]
) -> Markup:
    reach = [1.0]
    for row in rows:
        reach += [value / row["p50_ms"] for value in (*_shape(row).values(), *row["session_p50_ms"]) if value]
    scale = padded(reach, _LEFT, _RIGHT, share=0.06)
    bottom = 8 + _ROW * len(rows)
    words = "; ".join(f"{names[key_of(row)]} {row['p50_ms']:.4g} ms" for row in rows)
    canvas = Canvas(WIDTH, bottom + 46, f"Distributions of latency at batch {batch}; medians: {words}.")
    _bottom_axis(canvas, scale, 4, bottom, "time over the artifact's own median")
    deployed = deployed_key(report)
    for index, row in enumerate(rows):
        _strip(canvas, row, look_of(row, deployed), names[key_of(row)], scale, 8 + index * _ROW)
    return canvas.markup()


def _shape(row: dict[str, Any]) -> dict[str, float | None]:
    """What is drawn of a row: ends of the thin line, ends of the box."""
    quantiles = row["quantiles_ms"]
    if len(quantiles) == _QUANTILES:
        return {"low": quantiles[1], "box_low": quantiles[5], "box_high": quantiles[15], "high": quantiles[19]}
    return {"low": row["p50_ms"], "box_low": None, "box_high": None, "high": row["p99_ms"] or row["p90_ms"]}


def _strip(canvas: Canvas, row: dict[str, Any], look: str, name: str, scale: Scale, top: float) -> None:
    """One artifact: its name and median above, its times over that median below."""
    shape, middle, unit = _shape(row), top + 25, row["p50_ms"]
    canvas.text((_LEFT, top + 12), shortened(name, 36), f"name {look}")
    canvas.text((_RIGHT, top + 12), f"{row['p50_ms']:.4g} ms", "value", "end")
    low, high, box_low, box_high = shape["low"], shape["high"], shape["box_low"], shape["box_high"]
    tip = f"{name}: median {row['p50_ms']:.4g} ms"
    if low is not None and high is not None:
        canvas.line((scale(low / unit), middle), (scale(high / unit), middle), f"bar {look}")
    if box_low is not None and box_high is not None:
        left, right = scale(box_low / unit), scale(box_high / unit)
        canvas.box(left, middle - 5, right - left, 10, f"box {look}", tip)
    at = scale(1.0)
    canvas.line((at, middle - 8), (at, middle + 8), f"median {look}")
    for index, median in enumerate(row["session_p50_ms"]):
        canvas.dot((scale(median / unit), middle + 13), 2.5, f"session {look}", f"session {index + 1}: {median:.4g} ms")


def _bottom_axis(canvas: Canvas, scale: Scale, top: float, bottom: float, title: str) -> None:
    for tick in scale.ticks(5):
        canvas.line((scale(tick), top), (scale(tick), bottom), "grid")
        canvas.text((scale(tick), bottom + 18), f"{tick:g}", "tick", "middle")
    canvas.line((scale.start, bottom), (scale.end, bottom), "axis")
    canvas.text(((scale.start + scale.end) / 2, bottom + 38), title, "title", "middle")
