"""Throughput over batch sizes, and memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

from markupsafe import Markup

from vitcompress.pipeline.report.html.labels import spread
from vitcompress.pipeline.report.html.names import key_of, short_names
from vitcompress.pipeline.report.html.parts import Cell, Figure, Table, columns, not_drawn, number_cell
from vitcompress.pipeline.report.html.svg import SERIES, Canvas, from_zero, is_wide, padded, shortened, text_width
from vitcompress.pipeline.report.models import MEGABYTE
from vitcompress.pipeline.report.wording import Footnotes

_WIDE, _NARROW = (920, 230), (400, 150)
"""Width of the drawing, and of that for the names at its right, on wide pages and on narrow ones."""
_TICK = 12.0
"""Font size of the numbers at an axis, in units of the drawing."""
_LOOKS = (1, 0, *range(2, SERIES))
"""Of the lines in turn: the teacher's first, in the brown that it has in every other figure."""
_WIDE_RANGE = 20.0
"""Fastest over slowest, from which on the axis is logarithmic."""


def throughput_figure(report: dict[str, Any]) -> Figure | None:
    """Images a second over batch sizes, a line for each artifact; None where nothing was measured."""
    rows = [row for row in report["throughput"] if row["images_per_second"] is not None]
    if not rows:
        return None
    names = short_names(report["throughput"])
    table = Table(
        "Images a second",
        columns("artifact", "batch", "images a second", "95 % interval"),
        [
            [
                Cell(names[key_of(row)]),
                Cell(str(row["batch"]), sort=row["batch"]),
                Cell(f"{row['images_per_second']:.4g}", sort=row["images_per_second"]),
                Cell("-" if row["low"] is None else f"[{row['low']:.4g}, {row['high']:.4g}]"),
            ]
            for row in rows
        ],
    )
    return Figure(
        title="Throughput",
        drawings=[_throughput(rows, names, *_WIDE, "wide"), _throughput(rows, names, *_NARROW, "narrow")],
        caption="Images a second at each batch size: the batch over its median time. Bars are 95 % intervals.",
        table=table,
        notes=not_drawn(_lost(report["throughput"], names)),
    )


def _lost(rows: list[dict[str, Any]], names: dict[tuple[str, str, str], str]) -> list[tuple[str, str]]:
    """(what, why) of artifacts without numbers; their batch sizes only where others of the artifact were measured."""
    batches: dict[tuple[tuple[str, str, str], str], list[int]] = {}
    for row in rows:
        if row["images_per_second"] is None:
            batches.setdefault((key_of(row), row["reason"]), []).append(row["batch"])
    counts = Counter(key_of(row) for row in rows)
    return [
        (names[key] + ("" if len(sizes) == counts[key] else f" at batch {', '.join(map(str, sorted(sizes)))}"), why)
        for (key, why), sizes in batches.items()
    ]


def _throughput(
    rows: list[dict[str, Any]], names: dict[tuple[str, str, str], str], width: int, margin: int, kind: str
) -> Markup:
    lines: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["batch"]):
        lines.setdefault(key_of(row), []).append(row)
    batches = sorted({row["batch"] for row in rows})
    values = [value for row in rows for value in (row["images_per_second"], row["low"], row["high"]) if value]
    height, right = 320, width - margin
    log = is_wide(values, _WIDE_RANGE)
    y = padded(values, height - 46, 22, log=True) if log else from_zero(values, height - 46, 22)
    left = max(46.0, 8 + max(text_width(f"{tick:g}", _TICK) for tick in y.ticks()))
    x = padded(batches, left, right, log=True, share=0.03)
    words = "; ".join(f"{names[key]} {line[-1]['images_per_second']:.4g}" for key, line in lines.items())
    canvas = Canvas(width, height, f"Throughput over batch sizes; images a second at the largest: {words}.", kind)
    for tick in y.ticks():
        canvas.line((left, y(tick)), (right, y(tick)), "grid")
        canvas.text((left - 6, y(tick) + 4), f"{tick:g}", "tick", "end")
    for batch in batches:
        canvas.text((x(batch), height - 28), str(batch), "tick", "middle")
    canvas.line((left, height - 46), (right, height - 46), "axis")
    canvas.text((4, 12), "images a second" + (" (logarithmic)" if log else ""), "title")
    canvas.text(((left + right) / 2, height - 8), "batch size", "title", "middle")
    ends = [y(line[-1]["images_per_second"]) for line in lines.values()]
    places = spread(ends, 15, 22, height - 46)
    for index, ((key, line), end, place) in enumerate(zip(lines.items(), ends, places, strict=True)):
        look = f"s{_LOOKS[index % SERIES]}"
        points = [(x(row["batch"]), y(row["images_per_second"])) for row in line]
        canvas.curve(points, f"line {look}")
        for row, point in zip(line, points, strict=True):
            if row["low"] is not None:
                canvas.line((point[0], y(row["low"])), (point[0], y(row["high"])), f"bar {look}")
            tip = f"{names[key]}, batch {row['batch']}: {row['images_per_second']:.4g} images a second"
            canvas.dot(point, 3.2, f"spot {look}", tip)
        canvas.line((points[-1][0] + 5, end), (right + 8, place), "leader")
        canvas.text((right + 11, place + 4), shortened(names[key], (margin - 11) // 7), f"name {look}")
    return canvas.markup()


def memory_table(report: dict[str, Any]) -> Table | None:
    """Peak memory of a process that runs one artifact; None where the run has no such rows."""
    rows, marks = report["memory"], Footnotes()
    if not rows:
        return None
    names = short_names(rows)
    no_gpu = "no GPU memory is recorded for it, as for all that run on a CPU"
    body = [
        [
            Cell(names[key_of(row)]),
            Cell(str(row["batch"]), sort=row["batch"]),
            number_cell(_mega(row["peak_rss_bytes"]), ".1f", row["reason"] or "not measured", marks),
            number_cell(_mega(_own(row)), ".1f", row["reason"] or "not measured", marks),
            number_cell(_mega(row["gpu_bytes"]), ".1f", row["reason"] or no_gpu, marks),
        ]
        for row in rows
    ]
    head = columns("artifact", "batch", "peak, MB", "its own, MB", "GPU, MB")
    return Table(
        "Most resident memory of a process that runs this artifact alone, an ONNX file on the CPU; its own is that "
        "less what a process takes that only loads the runtime",
        head,
        body,
        marks.lines(),
    )


def _own(row: dict[str, Any]) -> int | None:
    peak, empty = row["peak_rss_bytes"], row["empty_rss_bytes"]
    return None if peak is None or empty is None else peak - empty


def _mega(value: int | None) -> float | None:
    return None if value is None else value / MEGABYTE
