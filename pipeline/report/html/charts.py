"""The page's charts: SVG pictures that matplotlib draws, the same bytes for the same report."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from vitcompress.pipeline.report.readings import Report, deployed_row, key_of, last_settings, names
from vitcompress.pipeline.report.wording import opened
from vitcompress.stages.analysis.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILLION,
    WIDTH,
    legend_below,
    shortened,
    style,
    styled,
)

Row = Mapping[str, Any]
Curves = dict[str, list[tuple[int, float]]]
"""(epoch, value) by name."""

NORMS = "Gradients: norm of each term's gradient at an epoch's first batch, where all terms meet: how hard it pulls."
WIDE = 8.0
"""Ratio of the slowest to the fastest from which an axis of times is logarithmic."""
_BOX = ("whislo", "q1", "q3", "whishi")
_COLOURS = (VERMILLION, GREEN, ORANGE, SKY, GREY)
_CURVES = ((BLACK, "-"), (BLUE, "--"), (ORANGE, "-."), (GREEN, ":"), (VERMILLION, (0, (6, 2, 1, 2))), (SKY, "-"))


class Chart(NamedTuple):
    """A drawing with words for those who cannot see it."""

    title: str
    uri: str
    """The picture as a data URI."""
    alt: str
    caption: str


def _uri(figure: Figure) -> str:
    """Return a figure as the data URI of an SVG picture."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@styled
def tradeoff(report: Report) -> Chart | None:
    """Return top-1 against latency at batch 1; None where no artifact has both numbers."""
    rows = [(row, row["latency"]["1"]["p50_ms"], row["top1"]) for row in report["models"]]
    rows = [(row, ms, top1) for row, ms, top1 in rows if ms["value"] is not None and top1["value"] is not None]
    if not rows:
        return None
    called, deployed = names(report), key_of(deployed_row(report))
    label, figure = report["score"]["label"], Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots()
    others = zip(cycle(_COLOURS), cycle("s^vPX*p"), strict=False)
    of_teacher = cycle("D<>hH8")
    for row, ms, top1 in rows:
        colour, marker = (BLUE, "o") if key_of(row) == deployed else next(others)
        if row["model"] == "teacher":
            colour, marker = BLACK, "d" if row["runtime"] == "torch" else next(of_teacher)
        told = f"{shortened(called[key_of(row)], 36)}: {top1['value']:.2f} %, {ms['value']:.4g} ms"
        bars: dict[str, Any] = {"xerr": ends(ms), "yerr": ends(top1), "elinewidth": 1, "capsize": 2.5}
        axes.errorbar(ms["value"], top1["value"], fmt=marker, color=colour, markersize=7, label=told, **bars)
    labelled = report["score"]["labelled"]  # else it would be a comparison of the teacher with itself
    teachers = [top1["value"] for row, _, top1 in rows if row["model"] == "teacher" and labelled]
    if teachers:
        axes.axhline(teachers[0], color=BLACK, linestyle="--", linewidth=1, zorder=0)
    axes.set(xlabel="median latency at batch 1, ms", ylabel=f"{label}, %")
    logarithmic_where_wide(axes)
    axes.margins(0.08, 0.12)
    legend_below(figure, axes, 2)
    line = f"; the dashed line is the teacher's {label}" if labelled else ""
    caption = (
        f"{opened(label)} on the held-out images against the median time for one image. Farther up is more accurate, "
        f"farther left is faster. Bars are 95 % intervals{line}. What lacks a number is not drawn."
    )
    alt = "Scatter plot of accuracy against latency; the numbers are in the table of models."
    return Chart("Accuracy against latency", _uri(figure), alt, caption)


@styled
def latencies(report: Report) -> Chart | None:
    """Return how the times of each artifact are distributed, a panel for each batch size; None where there are none."""
    timed = [row for row in report["latency"] if row["quantiles_ms"]]
    if not timed:
        return None
    called = names(report)
    keys = list(dict.fromkeys(key_of(row) for row in timed))
    batches = sorted({row["batch"] for row in timed})
    figure = Figure(figsize=(WIDTH, 1.1 + 0.32 * len(keys)), layout="constrained")
    for axes, batch in zip(figure.subplots(1, len(batches), sharey=True, squeeze=False)[0], batches, strict=True):
        rows = {key_of(row): row for row in timed if row["batch"] == batch}
        boxes = [
            {"med": row["p50_ms"], **dict(zip(_BOX, (row["quantiles_ms"][at] for at in (1, 5, 15, 19)), strict=True))}
            for row in rows.values()
        ]
        places = [keys.index(key) for key in rows]
        axes.bxp(boxes, places, widths=0.5, orientation="horizontal", showfliers=False, medianprops={"color": BLUE})
        axes.set(title=f"batch {batch}", xlabel="ms")
        axes.set_yticks(range(len(keys)), [shortened(called[key], 36) for key in keys])
        logarithmic_where_wide(axes)
    axes.invert_yaxis()
    caption = (
        "The line is the median, the box holds the middle half of all times, the whiskers reach from the 5th to the "
        "95th percentile. The table of times has the numbers."
    )
    return Chart("Distributions of latency", _uri(figure), "Box plots of latency, one for each artifact.", caption)


def logarithmic_where_wide(axes: Axes) -> None:
    """Make the horizontal axis logarithmic where its largest value is more than ``WIDE`` times the least."""
    low, high = axes.dataLim.intervalx
    if low > 0 and high / low > WIDE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def ends(given: Row) -> list[list[float]] | None:
    """Return an interval as the distances below and above that errorbar takes; None where there is none."""
    value, low, high = given["value"], given["low"], given["high"]
    return None if low is None else [[max(0.0, value - low)], [max(0.0, high - value)]]


def trainings(report: Report) -> list[Chart]:
    """Return the curves of each training, as its last settings left it, in the order of their beginning."""
    score = "cosine to the teacher" if report["task"] == "embedding" else report["score"]["label"]
    trained = last_settings(report["history"])
    drawn = ((name, lines, _panels(lines, score)) for name, lines in trained.items())
    return [_training(name, lines, panels, score) for name, lines, panels in drawn if panels]


@styled
def _training(name: str, lines: Sequence[Row], panels: Mapping[str, Curves], score: str) -> Chart:
    looks = dict(zip(dict.fromkeys(label for curves in panels.values() for label in curves), cycle(_CURVES)))
    handles: dict[str, Line2D] = {}
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for label, points in curves.items():
            colour, dashes = looks[label]
            (line,) = axes.plot(*zip(*points, strict=True), color=colour, linestyle=dashes, label=shortened(label, 30))
            line.set_marker("o" if len(points) == 1 else "")
            line.set_clip_on(len(points) > 1)  # else the frame cuts the highest marker
            handles[label] = line
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
        if min(value for points in curves.values() for _, value in points) >= 0:
            axes.set_ylim(bottom=0)
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=4)
    tuning = any(line.get("judged_on") == "tuning" for line in lines)
    where = "tuning images (held out of the training images, to choose the epoch)" if tuning else "held-out images"
    caption = f"Loss: mean of an epoch, and its weighted terms. {opened(score)}: on the {where} after an epoch."
    caption += f" {NORMS}" if "gradients" in panels else ""
    ends = (
        f"{title} {label}: {points[0][1]:.4g} to {points[-1][1]:.4g}"
        for title, curves in panels.items()
        for label, points in curves.items()
    )
    return Chart(f"Training of the {name}", _uri(figure), f"Curves over epochs. {'; '.join(ends)}.", caption)


def _panels(lines: Sequence[Row], score: str) -> dict[str, Curves]:
    """Return the curves of each panel, by its title: what was recorded, and terms of the loss where it has several."""
    terms = list(dict.fromkeys(term for line in lines for term in line.get("losses") or {}))

    def curve(parts: Iterable[Row | None], key: str, unit: float = 1.0) -> list[tuple[int, float]]:
        found = [(line["epoch"], (part or {}).get(key)) for line, part in zip(lines, parts, strict=True)]
        return [(epoch, unit * value) for epoch, value in found if value is not None]

    def by_term(key: str, unit: float = 1.0) -> Curves:
        parts = [line.get(key) for line in lines]
        return {term: curve(parts, term, unit) for term in terms} if len(terms) > 1 else {}

    panels = {
        "loss": {"total": curve(lines, "loss"), **by_term("losses")},
        f"{score}, %": {"raw weights": curve(lines, "val_top1_raw"), "averaged": curve(lines, "val_top1_ema")},
        "share of the loss, %": by_term("shares", 100.0),
        "gradients": by_term("gradient_norms"),
    }
    known = {title: {label: points for label, points in curves.items() if points} for title, curves in panels.items()}
    return {title: curves for title, curves in known.items() if curves}
