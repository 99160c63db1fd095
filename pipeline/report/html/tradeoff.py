"""Accuracy against latency of every artifact, the teacher among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vitcompress.pipeline.report.html.labels import Box, place
from vitcompress.pipeline.report.html.names import deployed_key, key_of, look_of, short_names
from vitcompress.pipeline.report.html.parts import Cell, Figure, Table, columns, not_drawn
from vitcompress.pipeline.report.html.svg import Canvas, Scale, is_wide, padded, shortened, text_width
from vitcompress.pipeline.report.wording import spoken

WIDE, NARROW = (920, 440), (400, 420)
"""Sizes of the drawing for wide pages and for narrow ones, so that its text stays readable on both."""
_WIDE_RANGE = 4.0
"""Slowest over fastest, from which on the axis is logarithmic."""
_NAME_LENGTH = 30
_ROOM = 0.22
"""Share of the drawing's width that is left free for a name at most; narrow drawings need theirs for the points."""


@dataclass(frozen=True)
class _Spot:
    """One artifact with both numbers."""

    name: str
    label: str
    look: str
    latency: dict[str, Any]
    top1: dict[str, Any]

    def ends(self, quantity: dict[str, Any]) -> list[float]:
        """The value and its interval."""
        return [number for number in (quantity["value"], quantity["low"], quantity["high"]) if number is not None]

    def tip(self) -> str:
        """All of it in words."""
        top1 = spoken(self.top1, ".2f", " %")
        return f"{self.label}: top-1 {top1}, median latency {spoken(self.latency, '.4g', ' ms')}"


def tradeoff(report: dict[str, Any]) -> Figure | None:
    """The figure at batch 1; None where no artifact has both numbers."""
    rows = [row for row in report["models"] if _reason(row) == ""]
    notes = not_drawn([(row["label"], _reason(row)) for row in report["models"] if _reason(row)])
    if not rows:
        return None
    names, deployed = short_names(rows), deployed_key(report)
    spots = [
        _Spot(names[key_of(row)], row["label"], look_of(row, deployed), row["latency"]["1"]["p50_ms"], row["top1"])
        for row in rows
    ]
    if all(spot.top1["low"] is None for spot in spots):
        notes.append("No vertical bars: the records of this run hold no interval of top-1 itself.")
    if all(spot.latency["low"] is None for spot in spots):
        notes.append("No horizontal bars: the records of this run hold no interval of the median latency itself.")
    return Figure(
        title="Accuracy against latency",
        drawings=[_draw(spots, *WIDE, "wide"), _draw(spots, *NARROW, "narrow")],
        caption="Top-1 on the held-out images against the median time for one image. Farther up is more accurate, "
        "farther left is faster. Bars are 95 % intervals; the dashed line is the teacher's top-1.",
        table=Table(
            "Numbers of this figure",
            columns("artifact", "top-1, %", "median latency, ms"),
            [
                [Cell(spot.label), *(_cell(given, form) for given, form in ((spot.top1, ".2f"), (spot.latency, ".4g")))]
                for spot in spots
            ],
        ),
        notes=notes,
    )


def _cell(given: dict[str, Any], form: str) -> Cell:
    return Cell(spoken(given, form, ""), sort=given["value"])


def _reason(row: dict[str, Any]) -> str:
    """Why a row has no place in the figure; empty when it has one."""
    lacking = [given["reason"] for given in (row["top1"], row["latency"]["1"]["p50_ms"]) if given["value"] is None]
    return str(lacking[0]) if lacking else ""


def _draw(spots: list[_Spot], width: int, height: int, kind: str) -> Markup:
    area = Box(58, 22, width - 16, height - 52)
    latencies = [number for spot in spots for number in spot.ends(spot.latency)]
    accuracies = [number for spot in spots for number in spot.ends(spot.top1)]
    # At the left of the fastest, room for its name, so that it need not stand across the others' bars.
    longest = max(text_width(shortened(spot.name, _NAME_LENGTH), 13) for spot in spots)
    room = longest if longest < _ROOM * width else 0.0
    x = padded(latencies, area.left + room, area.right - room / 2, log=is_wide(latencies, _WIDE_RANGE), share=0.05)
    y = padded(accuracies, area.bottom, area.top, share=0.16)
    words = "; ".join(spot.tip() for spot in spots)
    canvas = Canvas(width, height, f"Scatter plot of accuracy against latency. {words}.", kind)
    _axes(canvas, area, x, y)
    for spot in spots:
        if spot.look == "teacher":
            level = y(spot.top1["value"])
            canvas.line((area.left, level), (area.right, level), "reference")
            break
    marks = [_box(spot, x, y) for spot in spots]
    bars = [box for spot in spots for box in _bars(spot, x, y)]
    for spot in sorted(spots, key=lambda spot: spot.look != "other"):  # the teacher and the deployed one on top
        _mark(canvas, spot, x, y)
    order = sorted(spots, key=lambda spot: spot.look == "other")  # the teacher and the deployed one choose first
    looks = {shortened(spot.name, _NAME_LENGTH): spot.look for spot in spots}
    named = [(shortened(spot.name, _NAME_LENGTH), (x(spot.latency["value"]), y(spot.top1["value"]))) for spot in order]
    for label in place(named, marks, bars, area, size=13, gap=11):
        if label.far:
            canvas.line(label.anchor, label.leader()[-1], "leader")
        at, end = label.baseline
        canvas.text(at, label.text, f"name {looks[label.text]}", end)
    return canvas.markup()


def _axes(canvas: Canvas, area: Box, x: Scale, y: Scale) -> None:
    for tick in y.ticks():
        canvas.line((area.left, y(tick)), (area.right, y(tick)), "grid")
        canvas.text((area.left - 8, y(tick) + 4), f"{tick:g}", "tick", "end")
    for tick in x.ticks():
        canvas.line((x(tick), area.bottom), (x(tick), area.bottom + 5), "axis")
        canvas.text((x(tick), area.bottom + 19), f"{tick:g}", "tick", "middle")
    canvas.line((area.left, area.bottom), (area.right, area.bottom), "axis")
    canvas.text((area.left - 50, 12), "top-1, %", "title")
    words = "median latency at batch 1, ms" + (" (logarithmic)" if x.log else "")
    canvas.text(((area.left + area.right) / 2, area.bottom + 42), words, "title", "middle")


def _box(spot: _Spot, x: Scale, y: Scale) -> Box:
    """Around the mark."""
    at = x(spot.latency["value"]), y(spot.top1["value"])
    return Box(at[0] - 8, at[1] - 8, at[0] + 8, at[1] + 8)


def _bars(spot: _Spot, x: Scale, y: Scale) -> list[Box]:
    """Around the intervals."""
    at, boxes = (x(spot.latency["value"]), y(spot.top1["value"])), []
    if spot.latency["low"] is not None:
        boxes.append(Box(x(spot.latency["low"]), at[1] - 2, x(spot.latency["high"]), at[1] + 2))
    if spot.top1["low"] is not None:
        boxes.append(Box(at[0] - 4, y(spot.top1["high"]), at[0] + 4, y(spot.top1["low"])))
    return boxes


def _mark(canvas: Canvas, spot: _Spot, x: Scale, y: Scale) -> None:
    at = x(spot.latency["value"]), y(spot.top1["value"])
    kind = f"bar {spot.look}"
    if spot.latency["low"] is not None:
        canvas.line((x(spot.latency["low"]), at[1]), (x(spot.latency["high"]), at[1]), kind)
    if spot.top1["low"] is not None:
        low, high = y(spot.top1["low"]), y(spot.top1["high"])
        canvas.line((at[0], low), (at[0], high), kind)
        for end in (low, high):
            canvas.line((at[0] - 4, end), (at[0] + 4, end), kind)
    if spot.look == "teacher":
        canvas.diamond(at, 7.5, f"mark {spot.look}", spot.tip())
    else:
        canvas.dot(at, 6.5 if spot.look == "deployed" else 5, f"mark {spot.look}", spot.tip())
