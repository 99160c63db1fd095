"""Latency as it was distributed, at each batch size."""

from __future__ import annotations

from typing import Any

from vitcompress.core.words import counted
from vitcompress.pipeline.report.html.names import deployed_key, key_of, look_of, short_names
from vitcompress.pipeline.report.html.parts import Cell, Figure, Table, columns, not_drawn, number_cell
from vitcompress.pipeline.report.html.strips import Strip, draw, is_cut
from vitcompress.pipeline.report.wording import Footnotes, significant

_QUANTILES = 21
"""Minimum, 5th, 10th, ... 95th percentile, maximum (LatencyRow.quantiles_ms)."""
_EARLIER = "records of earlier versions of this program hold none"


def how_measured(report: dict[str, Any]) -> str:
    """The method, and of processor, threads and pinning what it does not name itself."""
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
    names, deployed = short_names(report["latency"]), deployed_key(report)
    strips = [_strip(row, names[key_of(row)], look_of(row, deployed)) for row in measured]
    if any(row["session_p50_ms"] for row in measured):
        drawn += ", each dot below the median of one session"
    if is_cut(strips):
        drawn += ". An arrow goes on beyond the axis, as far as the number beside it says"
    notes = not_drawn([(names[key_of(row)], row["reason"]) for row in rows if row["p50_ms"] is None])
    if not full:
        notes.append(f"Not all of these times have their whole distribution here: {_EARLIER}.")
    words = "; ".join(f"{strip.name} {significant(strip.median)} ms" for strip in strips)
    return Figure(
        title=f"Latency at batch {batch}",
        drawings=[draw(strips, f"Distributions of latency at batch {batch}; medians: {words}.")],
        caption=f"{drawn}.",
        table=_latency_table(measured, names),
        notes=notes + _unsettled(names, measured),
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


def _strip(row: dict[str, Any], name: str, look: str) -> Strip:
    quantiles, median = row["quantiles_ms"], row["p50_ms"]
    if len(quantiles) == _QUANTILES:
        ends, box = (quantiles[1], quantiles[19]), (quantiles[5], quantiles[15])
    else:
        ends, box = (median, row["p99_ms"] or row["p90_ms"] or median), None
    return Strip(name, look, median, *ends, box, row["session_p50_ms"])


def _unsettled(names: dict[tuple[str, str, str], str], rows: list[dict[str, Any]]) -> list[str]:
    """A sentence on those that were still becoming faster when they began to be timed; none where all had settled."""
    moving = [names[key_of(row)] for row in rows if not row["settled"]]
    still = [names[key_of(row)] for row in rows if row["settled"]]
    if not moving:
        return []
    if not still:
        which = f"all {len(moving)} artifacts" if len(moving) > 1 else moving[0]
    else:
        which = f"all but {', '.join(still)}" if len(still) < len(moving) else ", ".join(moving)
    return [f"Times were still falling when warm-up ended: {which}."]
