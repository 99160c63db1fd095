"""Curves of each training: loss, accuracy and learning rate over epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from vitcompress.pipeline.report.history import last_settings
from vitcompress.pipeline.report.html.labels import spread
from vitcompress.pipeline.report.html.parts import Cell, Column, Figure, Table, columns, number_cell
from vitcompress.pipeline.report.html.svg import SERIES, Canvas, from_zero, padded, shortened
from vitcompress.pipeline.report.loss_terms import HEADER, NORMS, term_rows
from vitcompress.pipeline.report.wording import Footnotes

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
    terms: Table | None = None
    """The terms of its loss, first and last epoch."""


def trainings(report: dict[str, Any]) -> list[Training]:
    """Every training of the run, as its last settings left it, in the order in which they began."""
    found = [_training(name, lines) for name, lines in last_settings(report["history"]).items()]
    terms = terms_table(report)
    return [replace(one, terms=terms) if one.name == "student" else one for one in found]


def _training(name: str, lines: list[dict[str, Any]]) -> Training:
    terms = _by_term(lines, "losses")
    losses = {"total": _points(lines, "loss"), **terms}
    accuracy = {"raw weights": _points(lines, "val_top1_raw"), "averaged": _points(lines, "val_top1_ema")}
    judges = any(line.get("judged_on") == "tuning" for line in lines)
    where = "tuning images (held out of the training images, to choose the epoch)" if judges else "held-out images"
    wanted = [
        ("Loss", "loss", losses, "Training loss of each epoch" + (", and its weighted terms." if terms else ".")),
        ("Top-1", "top-1, %", accuracy, f"Top-1 on the {where} after each epoch."),
        ("Learning rate", "learning rate", {"rate": _points(lines, "lr")}, "Learning rate at the end of each epoch."),
        ("Shares", "share of the loss, %", _by_term(lines, "shares", 100.0), "Each term's part of the loss."),
        ("Gradients", "norm of the gradient", _by_term(lines, "gradient_norms"), NORMS),
    ]
    figures = []
    for title, unit, curves, caption in wanted:
        there = {label: points for label, points in curves.items() if points}
        if there:
            look = 1 if there.keys() == terms.keys() else 0  # a term looks as it does beside the total
            figures.append(Figure(f"{title}, {name}", [_panel(f"{title} of {name}", unit, there, look)], caption))
    return Training(name, figures, _table(name, lines))


def _by_term(lines: list[dict[str, Any]], key: str, unit: float = 1.0) -> dict[str, Points]:
    """A curve a term, where a loss has several."""
    terms = list(dict.fromkeys(term for line in lines for term in line.get(key) or {}))
    if len(terms) < 2:
        return {}
    return {
        term: [(e["epoch"], v * unit) for e in lines if (v := (e.get(key) or {}).get(term)) is not None]
        for term in terms
    }


def terms_table(report: dict[str, Any]) -> Table | None:
    """The terms of the student's loss in its first and last epoch; None for fewer than two, or an older report."""
    rows = term_rows(report)
    body = [[Cell(cell, sort=None) for cell in row] for row in rows]
    return Table("Terms of the student's loss", columns(*HEADER), body) if body else None


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


def _panel(what: str, unit: str, curves: dict[str, Points], look: int = 0) -> Markup:
    """A plot of curves by name, the first in this look."""
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
        style, drawn = f"s{(look + index) % SERIES}", [(x(epoch), y(value)) for epoch, value in points]
        canvas.curve(drawn, f"line {style}", label)
        if len(points) == 1:
            canvas.dot(drawn[0], 3.2, f"spot {style}")
        if several:
            canvas.line((drawn[-1][0] + 3, end), (right + 8, place), "leader")
            canvas.text((right + 11, place + 4), shortened(label, 14), f"name {style}")
    return canvas.markup()
