"""Curves of each training: loss, accuracy and learning rate over epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipeline.report.history import last_settings
from pipeline.report.html.labels import spread
from pipeline.report.html.parts import Cell, Column, Figure, Table, number_cell
from pipeline.report.html.svg import SERIES, Canvas, from_zero, padded, shortened
from pipeline.report.wording import Footnotes

WIDTH, HEIGHT = 330, 230
_LEFT, _TOP, _BOTTOM = 52, 24, HEIGHT - 44

Points = list[tuple[int, float]]
"""(epoch, value)."""


@dataclass(frozen=True)
class Training:
    """One training's figures and its numbers."""

    name: str
    figures: list[Figure]
    table: Table


def trainings(report: dict[str, Any]) -> list[Training]:
    """Every training of the run, as its last settings left it, in the order in which they began."""
    return [_training(name, lines) for name, lines in last_settings(report["history"]).items()]


def _training(name: str, lines: list[dict[str, Any]]) -> Training:
    terms = list(dict.fromkeys(term for line in lines for term in line.get("losses") or {}))
    losses = {"total": _points(lines, "loss")}
    if len(terms) > 1:
        losses |= {
            term: [(e["epoch"], v) for e in lines if (v := (e.get("losses") or {}).get(term)) is not None]
            for term in terms
        }
    accuracy = {"raw weights": _points(lines, "val_top1_raw"), "averaged": _points(lines, "val_top1_ema")}
    wanted = [
        ("Loss", "loss", losses, "Training loss of each epoch" + (", and its weighted terms." if terms[1:] else ".")),
        ("Top-1", "top-1, %", accuracy, "Top-1 on the held-out images after each epoch."),
        ("Learning rate", "learning rate", {"rate": _points(lines, "lr")}, "Learning rate at the end of each epoch."),
    ]
    figures = []
    for title, unit, curves, caption in wanted:
        there = {label: points for label, points in curves.items() if points}
        if there:
            figures.append(Figure(f"{title}, {name}", [_panel(f"{title} of {name}", unit, there)], caption))
    return Training(name, figures, _table(name, lines))


def _points(lines: list[dict[str, Any]], key: str) -> Points:
    return [(line["epoch"], line[key]) for line in lines if line.get(key) is not None]


def _table(name: str, lines: list[dict[str, Any]]) -> Table:
    marks = Footnotes()
    wanted = (("loss", ".4g"), ("val_top1_raw", ".2f"), ("val_top1_ema", ".2f"), ("lr", ".3g"))
    body = [
        [
            Cell(str(line["epoch"]), sort=line["epoch"]),
            *(number_cell(line.get(key), form, "not in this epoch's record", marks) for key, form in wanted),
        ]
        for line in lines
    ]
    titles = ("epoch", "loss", "top-1 raw, %", "top-1 averaged, %", "learning rate")
    return Table(
        f"Training of the {name}, by epoch", [Column(title, number=True) for title in titles], body, marks.lines(),
        tall=True,
    )  # fmt: skip


def _readable(curves: dict[str, Points], unit: str) -> tuple[dict[str, Points], str]:
    """Values below a hundredth in units of a power of ten, which goes into the axis's title."""
    largest = max(abs(value) for points in curves.values() for _, value in points)
    if not 0 < largest < 0.01:
        return curves, unit
    power = math.floor(math.log10(largest))
    scaled = {label: [(epoch, value / 10**power) for epoch, value in points] for label, points in curves.items()}
    return scaled, f"{unit}, in 1e{power}"


def _panel(what: str, unit: str, curves: dict[str, Points]) -> Markup:
    several = len(curves) > 1
    curves, unit = _readable(curves, unit)
    right = WIDTH - (108 if several else 16)
    epochs = [epoch for points in curves.values() for epoch, _ in points]
    values = [value for points in curves.values() for _, value in points]
    x = padded(epochs, _LEFT, right, share=0.02)
    y = from_zero(values, _BOTTOM, _TOP) if min(values) >= 0 else padded(values, _BOTTOM, _TOP)
    words = "; ".join(
        f"{label}: {points[0][1]:.4g} at epoch {points[0][0]}, {points[-1][1]:.4g} at epoch {points[-1][0]}"
        for label, points in curves.items()
    )
    canvas = Canvas(WIDTH, HEIGHT, f"{what} over epochs ({unit}). {words}.")
    for tick in y.ticks():
        canvas.line((_LEFT, y(tick)), (right, y(tick)), "grid")
        canvas.text((_LEFT - 6, y(tick) + 4), f"{tick:g}", "tick", "end")
    for tick in (tick for tick in x.ticks() if tick == int(tick) and tick >= 1):
        canvas.text((x(tick), _BOTTOM + 18), f"{tick:g}", "tick", "middle")
    canvas.line((_LEFT, _BOTTOM), (right, _BOTTOM), "axis")
    canvas.text((4, 12), unit, "title")
    canvas.text(((_LEFT + right) / 2, _BOTTOM + 36), "epoch", "title", "middle")
    ends = [y(points[-1][1]) for points in curves.values()]
    places = spread(ends, 15, _TOP, _BOTTOM)
    for index, ((label, points), end, place) in enumerate(zip(curves.items(), ends, places, strict=True)):
        look, drawn = f"s{index % SERIES}", [(x(epoch), y(value)) for epoch, value in points]
        canvas.curve(drawn, f"line {look}", label)
        if len(points) == 1:
            canvas.dot(drawn[0], 3.2, f"spot {look}")
        if several:
            canvas.line((drawn[-1][0] + 3, end), (right + 8, place), "leader")
            canvas.text((right + 11, place + 4), shortened(label, 14), f"name {look}")
    return canvas.markup()
